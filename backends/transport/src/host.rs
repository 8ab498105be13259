//! The name of this host.

/// The name of this host, as `uname -n` prints it. What is not UTF-8 in it is replaced.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_host_has_the_name_that_the_kernel_knows() {
        let known = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(super::host_name(), known.trim_end());
    }
}
