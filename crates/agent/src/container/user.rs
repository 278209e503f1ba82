//! USER of a Dockerfile, resolved as Docker does: in the container's own /etc/passwd and /etc/group.
//!
//! Both files are the tenant's: anything may stand in them, or in their place.
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, bail};

/// Ids above this are refused, as container runtimes do.
const MAX_ID: u32 = i32::MAX as u32;
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Who a process is.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory; `/` for a user without an entry.
    pub home: String,
}

/// Resolves `user` in the files of the current root.
pub fn resolve(user: &str) -> anyhow::Result<Identity> {
    resolve_in(user, &read("/etc/passwd"), &read("/etc/group"))
}

/// An absent file, or one that is no file, has no entries.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    // Without waiting, should it be a pipe.
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    if let Ok(file) = opened.and_then(|file| {
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(std::io::ErrorKind::InvalidInput.into())
        }
    }) {
        let _ = file.take(MAX_FILE_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn resolve_in(user: &str, passwd: &str, group: &str) -> anyhow::Result<Identity> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let numeric = number(user);
    // A name goes before a number, should somebody be called like one.
    let entry = passwd
        .lines()
        .filter_map(Account::parse)
        .find(|account| account.name == user)
        .or_else(|| {
            passwd
                .lines()
                .filter_map(Account::parse)
                .find(|account| Some(account.uid) == numeric)
        });
    let (uid, mut gid, home, name) = match (&entry, numeric) {
        (Some(account), _) => (account.uid, account.gid, account.home, Some(account.name)),
        (None, Some(uid)) => (uid, 0, "", None),
        (None, None) => bail!("unable to find user {user}: no matching entry in passwd file"),
    };
    let mut groups = Vec::new();
    match wanted_group {
        Some(wanted) => {
            let by_name = group
                .lines()
                .filter_map(Group::parse)
                .find(|group| group.name == wanted);
            gid = by_name
                .map(|group| group.gid)
                .or_else(|| number(wanted))
                .with_context(|| format!("unable to find group {wanted}: no matching entry in group file"))?;
        }
        None => {
            if let Some(name) = name {
                groups = group
                    .lines()
                    .filter_map(Group::parse)
                    .filter(|group| group.members.split(',').any(|member| member == name))
                    .map(|group| group.gid)
                    .collect();
                groups.sort_unstable();
                groups.dedup();
            }
        }
    }
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity {
        uid,
        gid,
        groups,
        home: home.to_string(),
    })
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Account<'_> {
    /// `name:password:uid:gid:comment:home:shell`
    fn parse(line: &str) -> Option<Account<'_>> {
        let mut fields = line.split(':');
        Some(Account {
            name: fields.next().filter(|name| !name.is_empty())?,
            uid: number(fields.nth(1)?)?,
            gid: number(fields.next()?)?,
            home: fields.nth(1).unwrap_or_default(),
        })
    }
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Group<'_> {
    /// `name:password:gid:member,member`
    fn parse(line: &str) -> Option<Group<'_>> {
        let mut fields = line.split(':');
        Some(Group {
            name: fields.next().filter(|name| !name.is_empty())?,
            gid: number(fields.nth(1)?)?,
            members: fields.next().unwrap_or_default(),
        })
    }
}

fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
        .filter(|id| *id <= MAX_ID)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n1234:x:7:8::/odd:\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\naudio:x:29:other,app\nvideo:x:44:app\nstaff:x:50:root\n";

    fn identity(user: &str) -> Identity {
        resolve_in(user, PASSWD, GROUP).expect("resolves")
    }

    fn known(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
        Identity {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.into(),
        }
    }

    #[test]
    fn nobody_named_is_root() {
        assert_eq!(identity(""), known(0, 0, &[50], "/root"));
        assert_eq!(resolve_in("", "", "").expect("resolves"), known(0, 0, &[], "/"));
    }

    #[test]
    fn a_user_by_name_or_id_has_its_groups_and_home() {
        let app = known(1000, 1001, &[29, 44], "/home/app");
        assert_eq!(identity("app"), app);
        assert_eq!(identity("1000"), app);
        assert_eq!(identity("1234"), known(7, 8, &[], "/odd"));
    }

    #[test]
    fn a_given_group_replaces_all_others() {
        assert_eq!(identity("app:video"), known(1000, 44, &[], "/home/app"));
        assert_eq!(identity("app:4000"), known(1000, 4000, &[], "/home/app"));
        assert_eq!(identity("77:78"), known(77, 78, &[], "/"));
    }

    #[test]
    fn an_unknown_name_or_an_id_out_of_range_is_refused() {
        for user in [
            "nobody",
            "app:nobody",
            "4294967295",
            "2147483648",
            "-1",
            "+5",
            "1 ",
        ] {
            assert!(resolve_in(user, PASSWD, GROUP).is_err(), "{user}");
        }
    }

    #[test]
    fn broken_lines_are_passed_over() {
        let passwd = "\n:::::\napp\napp:x:abc:1\napp:x:99999999999:1:::\napp:x:5:6\n";
        assert_eq!(
            resolve_in("app", passwd, ":::").expect("resolves"),
            known(5, 6, &[], "/")
        );
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(user in ".{0,12}", passwd in "[a-z0-9:\\n,]{0,200}", group in "[a-z0-9:\\n,]{0,200}") {
            let _ = resolve_in(&user, &passwd, &group);
        }
    }
}
