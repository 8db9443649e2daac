//! Who can read a file and who can change it: by its owner, its mode, and its access control list.
//!
//! Secrets come by many ways: a file of one's own; one of root's for a group of the process, as Kubernetes and Docker
//! mount them; one of root's with an entry for one user in its list, as systemd passes credentials. Each is accepted if
//! nobody can read it but root, the user of the process, and its groups.

use std::fmt;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;

use rustix::process::{getegid, geteuid, getgroups};

const READ: u32 = 0o4;
const WRITE: u32 = 0o2;

/// The user and groups of a process.
#[derive(Clone, Debug)]
pub struct Process {
    user: u32,
    /// The group that it makes files with, then the others.
    groups: Vec<u32>,
}

impl Process {
    /// This one.
    pub fn this() -> Self {
        let mut groups = vec![getegid().as_raw()];
        groups.extend(getgroups().unwrap_or_default().iter().map(|group| group.as_raw()));
        Self { user: geteuid().as_raw(), groups }
    }
}

/// Somebody, or several, to whom a system allows something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    User(u32),
    Group(u32),
    Everybody,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user {id}"),
            Self::Group(id) => write!(f, "group {id}"),
            Self::Everybody => f.write_str("every user of this machine"),
        }
    }
}

/// Who may do what with a file.
#[derive(Clone, Debug)]
pub struct Access {
    owner: u32,
    /// With the bits of a mode.
    allowed: Vec<(Who, u32)>,
    /// It is mounted so that nobody can change it, nor its mode.
    read_only: bool,
}

/// What is wrong with a file, and how to mend it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wrong {
    /// What follows the file's path in a sentence.
    pub what: String,
    /// Commands, or what else to do.
    pub advice: String,
}

impl Access {
    /// Who may do what with an open file.
    pub fn of(file: &File, found: &Metadata) -> Self {
        let (owner, group, mode) = (found.uid(), found.gid(), found.mode());
        let allowed = list(file).and_then(|list| entries(&list, owner, group));
        let read_only = rustix::fs::fstatvfs(file)
            .is_ok_and(|system| system.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        Self { owner, allowed: allowed.unwrap_or_else(|| plain(owner, group, mode)), read_only }
    }

    /// What is wrong with it as a secret, which only root, the user of the process and its groups may read, and
    /// only root and the user may change.
    pub fn wrong_for_secret(&self, path: &str, process: &Process) -> Option<Wrong> {
        let readable = |who: Who| match who {
            Who::User(id) => id == 0 || id == process.user,
            Who::Group(id) => id == 0 || process.groups.contains(&id),
            Who::Everybody => false,
        };
        let reader = self.somebody(READ, readable).map(|who| format!("can be read by {who}"));
        let what = self.foreign(process).or(reader).or_else(|| self.writer(process))?;
        let Process { user, groups } = process;
        let group = groups.first().copied().unwrap_or_default();
        let advice = match () {
            () if self.read_only => format!(
                "it is mounted read-only: have it mounted for user {user} with mode 0400, or for group {group} with mode 0440 \
                 (Kubernetes: fsGroup and defaultMode; Docker: uid, gid and mode)"
            ),
            () if self.owner == *user => format!("run `chmod 600 {path}`"),
            () => format!("run `chown {user} {path}` and `chmod 600 {path}` as root"),
        };
        Some(Wrong { what, advice })
    }

    /// What is wrong with it as something that says whom to trust, which only root and the user of the process may
    /// change.
    pub fn wrong_for_trust(&self, path: &str, process: &Process) -> Option<Wrong> {
        if self.read_only && self.foreign(process).is_none() {
            return None;
        }
        let what = self.foreign(process).or_else(|| self.writer(process))?;
        let user = process.user;
        let advice = match self.foreign(process) {
            Some(_) => format!("make a copy of your own, or run `chown {user} {path}` as root"),
            None => format!("run `chmod go-w {path}`"),
        };
        Some(Wrong { what, advice })
    }

    /// The owner can change it at any time.
    fn foreign(&self, process: &Process) -> Option<String> {
        let owner = self.owner;
        (owner != 0 && owner != process.user)
            .then(|| format!("belongs to another user of this machine (user {owner})"))
    }

    fn writer(&self, process: &Process) -> Option<String> {
        let trusted = |who| matches!(who, Who::User(id) if id == 0 || id == process.user);
        self.somebody(WRITE, trusted).map(|who| format!("can be changed by {who}"))
    }

    /// The first who may do it and is not trusted to. Those who are most come first.
    fn somebody(&self, what: u32, trusted: impl Fn(Who) -> bool) -> Option<Who> {
        let mut somebody = self.allowed.iter().rev();
        somebody.find(|(who, allowed)| allowed & what != 0 && !trusted(*who)).map(|(who, _)| *who)
    }
}

/// What a mode says.
fn plain(owner: u32, group: u32, mode: u32) -> Vec<(Who, u32)> {
    vec![(Who::User(owner), mode >> 6 & 7), (Who::Group(group), mode >> 3 & 7), (Who::Everybody, mode & 7)]
}

/// The file's access control list, if it has one.
#[cfg(target_os = "linux")]
fn list(file: &File) -> Option<Vec<u8>> {
    /// The most that the system keeps as one.
    const MOST: usize = 64 << 10;
    let mut list = vec![0; MOST];
    let len = rustix::fs::fgetxattr(file, "system.posix_acl_access", &mut list[..]).ok()?;
    list.truncate(len);
    Some(list)
}

#[cfg(not(target_os = "linux"))]
fn list(_: &File) -> Option<Vec<u8>> {
    None
}

/// What the system's form of an access control list says (acl(5); `posix_acl_xattr.h` of Linux): a version, then
/// entries of a tag, bits, and an id.
fn entries(list: &[u8], owner: u32, group: u32) -> Option<Vec<(Who, u32)>> {
    const VERSION: [u8; 4] = 2_u32.to_le_bytes();
    const OWNER: u16 = 0x01;
    const USER: u16 = 0x02;
    const OWNING_GROUP: u16 = 0x04;
    const GROUP: u16 = 0x08;
    const MASK: u16 = 0x10;
    const OTHERS: u16 = 0x20;
    let list = list.strip_prefix(&VERSION)?;
    let entry = |entry: &[u8]| -> Option<(u16, u32, u32)> {
        let (tag, rest) = entry.split_first_chunk()?;
        let (bits, rest) = rest.split_first_chunk()?;
        let id = u32::from_le_bytes(rest.try_into().ok()?);
        Some((u16::from_le_bytes(*tag), u16::from_le_bytes(*bits).into(), id))
    };
    let list = list.chunks(8).map(entry).collect::<Option<Vec<_>>>()?;
    // What the mask does not have, only the owner and others have.
    let mask = list.iter().find(|(tag, ..)| *tag == MASK).map_or(7, |(_, bits, _)| *bits);
    let who = |(tag, bits, id): &(u16, u32, u32)| match *tag {
        OWNER => Some((Who::User(owner), *bits)),
        USER => Some((Who::User(*id), bits & mask)),
        OWNING_GROUP => Some((Who::Group(group), bits & mask)),
        GROUP => Some((Who::Group(*id), bits & mask)),
        OTHERS => Some((Who::Everybody, *bits)),
        _ => None,
    };
    Some(list.iter().filter_map(who).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u32 = 1000;
    const MY_GROUP: u32 = 100;
    const MY_OTHER_GROUP: u32 = 2000;
    const ANOTHER: u32 = 1001;

    fn me() -> Process {
        Process { user: ME, groups: vec![MY_GROUP, MY_OTHER_GROUP] }
    }

    fn file(owner: u32, group: u32, mode: u32) -> Access {
        Access { owner, allowed: plain(owner, group, mode), read_only: false }
    }

    fn secret(access: &Access) -> String {
        access
            .wrong_for_secret("F", &me())
            .map_or("fine".into(), |wrong| format!("{}; {}", wrong.what, wrong.advice))
    }

    fn trust(access: &Access) -> String {
        access
            .wrong_for_trust("F", &me())
            .map_or("fine".into(), |wrong| format!("{}; {}", wrong.what, wrong.advice))
    }

    #[test]
    fn secrets() {
        for (owner, group, mode, expected) in [
            (ME, MY_GROUP, 0o600, "fine"),
            (ME, ANOTHER, 0o400, "fine"),
            (0, 0, 0o400, "fine"),
            (0, MY_GROUP, 0o440, "fine"),
            (0, MY_OTHER_GROUP, 0o440, "fine"),
            (0, MY_OTHER_GROUP, 0o640, "fine"),
            (ME, MY_GROUP, 0o640, "fine"),
            (0, 0, 0o440, "fine"),
            (ME, MY_GROUP, 0o644, "can be read by every user of this machine; run `chmod 600 F`"),
            (ME, MY_GROUP, 0o604, "can be read by every user of this machine; run `chmod 600 F`"),
            (
                0,
                MY_GROUP,
                0o444,
                "can be read by every user of this machine; run `chown 1000 F` and `chmod 600 F` as root",
            ),
            (ME, ANOTHER, 0o640, "can be read by group 1001; run `chmod 600 F`"),
            (ME, MY_GROUP, 0o660, "can be changed by group 100; run `chmod 600 F`"),
            (ME, MY_GROUP, 0o602, "can be changed by every user of this machine; run `chmod 600 F`"),
            (
                ANOTHER,
                MY_GROUP,
                0o440,
                "belongs to another user of this machine (user 1001); run `chown 1000 F` and `chmod 600 F` as root",
            ),
        ] {
            assert_eq!(secret(&file(owner, group, mode)), expected, "{owner}:{group} {mode:o}");
        }
        let mounted = Access { read_only: true, ..file(0, 0, 0o444) };
        assert_eq!(
            secret(&mounted),
            "can be read by every user of this machine; it is mounted read-only: have it mounted for user 1000 with mode \
             0400, or for group 100 with mode 0440 (Kubernetes: fsGroup and defaultMode; Docker: uid, gid and mode)"
        );
    }

    #[test]
    fn what_says_whom_to_trust() {
        for (owner, group, mode, expected) in [
            (ME, ANOTHER, 0o644, "fine"),
            (0, 0, 0o444, "fine"),
            (ME, MY_GROUP, 0o664, "can be changed by group 100; run `chmod go-w F`"),
            (ME, MY_GROUP, 0o646, "can be changed by every user of this machine; run `chmod go-w F`"),
            (
                ANOTHER,
                MY_GROUP,
                0o644,
                "belongs to another user of this machine (user 1001); make a copy of your own, or run `chown 1000 F` as \
                 root",
            ),
        ] {
            assert_eq!(trust(&file(owner, group, mode)), expected, "{owner}:{group} {mode:o}");
        }
    }

    /// A list as the system has it.
    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, bits, id) in entries {
            list.extend_from_slice(&tag.to_le_bytes());
            list.extend_from_slice(&bits.to_le_bytes());
            list.extend_from_slice(&id.to_le_bytes());
        }
        list
    }

    #[test]
    fn access_control_lists() {
        const NOBODY: u32 = u32::MAX;
        let listed = |user: (u16, u32), group: (u16, u32), mask: u16| {
            let list = acl(&[
                (0x01, 4, NOBODY),
                (0x02, user.0, user.1),
                (0x04, 0, NOBODY),
                (0x08, group.0, group.1),
                (0x10, mask, NOBODY),
                (0x20, 0, NOBODY),
            ]);
            Access { owner: 0, allowed: entries(&list, 0, 0).unwrap(), read_only: false }
        };
        // As systemd passes a credential to the user of a service.
        assert_eq!(secret(&listed((4, ME), (0, ANOTHER), 4)), "fine");
        assert_eq!(secret(&listed((4, ME), (4, MY_OTHER_GROUP), 4)), "fine");
        assert_eq!(secret(&listed((4, ANOTHER), (4, ANOTHER), 0)), "fine", "nothing of it has effect");
        assert!(secret(&listed((4, ANOTHER), (0, 0), 4)).starts_with("can be read by user 1001;"));
        assert!(secret(&listed((4, ME), (4, ANOTHER), 4)).starts_with("can be read by group 1001;"));
        assert!(secret(&listed((6, ANOTHER), (0, 0), 2)).starts_with("can be changed by user 1001;"));
        assert!(trust(&listed((6, ANOTHER), (0, 0), 6)).starts_with("can be changed by user 1001;"));
        assert_eq!(trust(&listed((6, ANOTHER), (7, ANOTHER), 4)), "fine");
        for damaged in [&b""[..], b"\x02\0\0", b"\x03\0\0\0", b"\x02\0\0\0\x01\0\x04"] {
            assert_eq!(entries(damaged, 0, 0), None);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_list_of_a_real_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let user = geteuid().as_raw() + 4711;
        let nobody = u32::MAX;
        let list = acl(&[(1, 6, nobody), (2, 4, user), (4, 0, nobody), (16, 4, nobody), (32, 0, nobody)]);
        let set = rustix::fs::XattrFlags::empty();
        if rustix::fs::fsetxattr(file.as_file(), "system.posix_acl_access", &list, set).is_err() {
            println!("skipped: this file system has no access control lists");
            return;
        }
        let found = file.as_file().metadata().unwrap();
        assert_eq!(found.mode() & 0o777, 0o640, "the mask takes the place of the group");
        let access = Access::of(file.as_file(), &found);
        let wrong = access.wrong_for_secret("F", &Process::this()).unwrap();
        assert_eq!(
            (wrong.what, wrong.advice),
            (format!("can be read by user {user}"), "run `chmod 600 F`".into())
        );
    }
}
