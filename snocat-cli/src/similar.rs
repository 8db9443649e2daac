//! What somebody has probably meant.

/// The one of `known` that `word` is a slip of, if there is one.
pub fn similar(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let closest = known.iter().map(|known| (distance(&word, known), *known)).min()?;
    let begun = known.iter().find(|known| known.len() > 3 && word.starts_with(**known));
    (closest.0 <= 2 && closest.0 < word.len()).then_some(closest.1).or(begun.copied())
}

/// How many letters have to be put in, taken out or replaced.
fn distance(a: &str, b: &str) -> usize {
    // A slip is short, and what is long is none: it may be a secret, and as long as a file.
    const LONGEST: usize = 32;
    if a.len() > LONGEST || b.len() > LONGEST {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut next = vec![i + 1];
        for ((to, above), (diagonal, left_index)) in
            b.bytes().zip(row.iter().skip(1)).zip(row.iter().zip(0..))
        {
            let left = next.get(left_index).copied().unwrap_or_default();
            next.push((diagonal + usize::from(from != to)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognized_and_other_words_are_not() {
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        for (word, meant) in [
            ("deubg", Some("debug")),
            ("warning", Some("warn")),
            ("DEBUGG", Some("debug")),
            ("inf", Some("info")),
            ("err", Some("error")),
            ("verbose", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(similar(word, &levels), meant, "{word}");
        }
        assert_eq!(similar(&"debug".repeat(1 << 18), &["names"]), None);
        assert_eq!(similar("name", &["identity", "names", "ports"]), Some("names"));
    }
}
