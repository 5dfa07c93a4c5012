//! The capabilities that the datapath takes.

/// Name and bit (include/uapi/linux/capability.h). CAP_SYS_ADMIN stands for the two that were split off it in Linux 5.8.
const NEEDED: [(&str, u64); 3] =
    [("CAP_BPF", SYS_ADMIN | 1 << 39), ("CAP_NET_ADMIN", 1 << 12), ("CAP_PERFMON", SYS_ADMIN | 1 << 38)];
const SYS_ADMIN: u64 = 1 << 21;

/// Those that this process lacks. None if they can't be read: then the kernel will say.
pub(super) fn missing() -> Vec<&'static str> {
    std::fs::read_to_string("/proc/thread-self/status").map(|s| missing_in(&s)).unwrap_or_default()
}

/// From `/proc/PID/status`.
fn missing_in(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let Some(effective) = effective else { return Vec::new() };
    NEEDED.into_iter().filter(|(_, bits)| effective & bits == 0).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let missing = |caps: &str| missing_in(&format!("Name:\tx\nCapPrm:\t0\nCapEff:\t{caps}\n"));
        assert_eq!(missing("0000000000000000"), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing("000000c000001000"), [""; 0]);
        assert_eq!(missing("0000000000201000"), [""; 0], "CAP_SYS_ADMIN");
        assert_eq!(missing("000001ffffffffff"), [""; 0]);
        assert_eq!(missing("000000c000000000"), ["CAP_NET_ADMIN"]);
        assert_eq!(missing_in("nothing of the kind"), [""; 0]);
    }
}
