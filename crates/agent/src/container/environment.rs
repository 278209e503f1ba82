//! The environment of a container's process, and the program's place in it.

/// PATH where the image sets none: Docker's default.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_HOSTNAME: &str = "HOSTNAME=localhost";

/// One entry for each name (the last one given, in the place of the first), with PATH, HOSTNAME and HOME where they
/// were missing. Entries without a name or an equals sign are dropped.
pub fn complete(given: &[String], home: &str) -> Vec<String> {
    let home = format!("HOME={home}");
    let defaults = [DEFAULT_PATH, DEFAULT_HOSTNAME, home.as_str()];
    let mut env: Vec<String> = Vec::with_capacity(given.len() + defaults.len());
    for entry in given {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            continue;
        };
        match env.iter_mut().find(|present| name_of(present) == name) {
            Some(present) => present.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
    for default in defaults {
        if !env.iter().any(|present| name_of(present) == name_of(default)) {
            env.push(default.to_string());
        }
    }
    env
}

/// The paths to try for a program: itself when it has a slash, else in each directory of PATH.
pub fn candidates(program: &str, env: &[String]) -> Vec<String> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains('/') {
        return vec![program.to_string()];
    }
    let path = env
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or_default();
    path.split(':')
        .map(|directory| if directory.is_empty() { "." } else { directory })
        .map(|directory| format!("{directory}/{program}"))
        .collect()
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(of: &[&str]) -> Vec<String> {
        of.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn later_entries_win_and_nonsense_is_dropped() {
        let env = complete(&strings(&["A=1", "B=2", "A=3=x", "C", "=D", "E="]), "/root");
        assert_eq!(env[..3], strings(&["A=3=x", "B=2", "E="]));
    }

    #[test]
    fn defaults_fill_only_what_is_missing() {
        let env = complete(&strings(&["PATH=/only", "HOSTNAME=other"]), "/home/app");
        assert_eq!(env, strings(&["PATH=/only", "HOSTNAME=other", "HOME=/home/app"]));
        assert!(complete(&[], "/").contains(&DEFAULT_PATH.to_string()));
    }

    #[test]
    fn a_program_is_looked_up_in_the_path_unless_it_has_a_slash() {
        let env = strings(&["PATH=/a::/b"]);
        assert_eq!(candidates("sh", &env), strings(&["/a/sh", "./sh", "/b/sh"]));
        assert_eq!(candidates("./sh", &env), strings(&["./sh"]));
        assert!(candidates("", &env).is_empty());
    }
}
