//! What callgrind has written: instructions by function, and calls of the allocator.

use std::collections::BTreeMap;

use crate::Result;

/// Functions that give out memory.
const ALLOCATORS: [&str; 5] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

/// Instructions by function, without what it calls.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    functions: BTreeMap<String, f64>,
    /// Calls of the allocator for memory.
    pub(crate) allocations: f64,
}

impl Profile {
    /// Reads callgrind's format, with neither names nor positions compressed: `fn=` begins a function, a line of numbers is a
    /// position and what was executed there, and `calls=`, after the function that is called in `cfn=`, has a line behind it
    /// with what the call has cost.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut profile = Self::default();
        let (mut function, mut called) = (String::new(), "");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = plain(name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                called = name;
            } else if let Some(calls) = line.strip_prefix("calls=") {
                let count = calls.split(' ').next().ok_or("no number of calls")?;
                if ALLOCATORS.contains(&called) {
                    profile.allocations += count.parse::<f64>()?;
                }
                lines.next();
            } else if line.starts_with(|first: char| first.is_ascii_digit()) {
                let (_, cost) = line.rsplit_once(' ').ok_or("a position without a cost")?;
                *profile.functions.entry(function.clone()).or_default() += cost.parse::<f64>()?;
            }
        }
        if profile.functions.is_empty() { Err("callgrind has counted nothing".into()) } else { Ok(profile) }
    }

    /// What this has more than another.
    pub(crate) fn minus(mut self, other: &Self) -> Self {
        self.allocations -= other.allocations;
        for (name, instructions) in &other.functions {
            *self.functions.entry(name.clone()).or_default() -= instructions;
        }
        self
    }

    /// A part of it.
    pub(crate) fn per(mut self, parts: f64) -> Self {
        self.allocations /= parts;
        self.functions.values_mut().for_each(|instructions| *instructions /= parts);
        self
    }

    /// All instructions.
    pub(crate) fn total(&self) -> f64 {
        self.functions.values().sum()
    }

    /// The functions with the most instructions.
    pub(crate) fn most(&self, count: usize) -> Vec<(&str, f64)> {
        let mut all: Vec<_> = self.functions.iter().map(|(name, cost)| (name.as_str(), *cost)).collect();
        all.sort_by(|one, other| other.1.total_cmp(&one.1));
        all.truncate(count);
        all
    }
}

/// A name without the hash that the compiler puts behind it.
fn plain(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            path.to_owned()
        }
        _ => name.to_owned(),
    }
}
