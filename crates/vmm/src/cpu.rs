//! The host's processor, as far as a guest under KVM depends on it.

use std::io;

/// What tells processors apart between which a running guest cannot move, from `/proc/cpuinfo`.
pub fn fingerprint() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo")?;
    describe(&text).ok_or_else(|| io::Error::other("/proc/cpuinfo names no processor"))
}

/// Vendor, family and model, and a checksum of the feature flags in order.
fn describe(cpuinfo: &str) -> Option<String> {
    let first = cpuinfo.split("\n\n").next()?;
    let field = |name: &str| {
        let mut pairs = first.lines().filter_map(|line| line.split_once(':'));
        pairs
            .find(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
    };
    let mut flags: Vec<&str> = field("flags")?.split_whitespace().collect();
    flags.sort_unstable();
    Some(format!(
        "{} family {} model {} features {:08x}",
        field("vendor_id")?,
        field("cpu family")?,
        field("model")?,
        crc32fast::hash(flags.join(" ").as_bytes())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 33\nmodel name\t: AMD Ryzen\nflags\t\t: fpu vme avx2\n\nprocessor\t: 1\nvendor_id\t: AuthenticAMD\n";

    #[test]
    fn processors_are_told_apart_by_model_and_features_not_by_order() {
        let one = describe(CPUINFO).expect("a processor");
        assert!(
            one.starts_with("AuthenticAMD family 25 model 33 features "),
            "{one}"
        );
        assert_eq!(
            describe(&CPUINFO.replace("fpu vme avx2", "avx2 fpu vme")),
            Some(one.clone())
        );
        assert_ne!(describe(&CPUINFO.replace(" avx2", "")), Some(one.clone()));
        assert_ne!(describe(&CPUINFO.replace("\t: 33", "\t: 34")), Some(one));
        assert_eq!(describe("nothing"), None);
    }

    #[test]
    fn this_machine_has_one() {
        fingerprint().expect("read");
    }
}
