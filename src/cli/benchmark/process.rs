//! What the kernel says about a process, from `/proc`; nothing where it does not say.

/// A process, by its id.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// The most memory that it had so far, in bytes.
    pub fn memory_peak(self) -> Option<u64> {
        kibibytes(&self.read("status")?, "VmHWM:")
    }

    /// The memory that it has, in bytes.
    pub fn memory(self) -> Option<u64> {
        kibibytes(&self.read("status")?, "VmRSS:")
    }

    /// Bytes that it caused to be written to disks.
    pub fn bytes_written(self) -> Option<u64> {
        number(&self.read("io")?, "write_bytes:")
    }

    fn read(self, name: &str) -> Option<String> {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.0)).ok()
    }
}

/// The rest of the line that begins with `name`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    Some(
        text.lines()
            .find_map(|line| line.strip_prefix(name))?
            .trim(),
    )
}

fn number(text: &str, name: &str) -> Option<u64> {
    value(text, name)?.parse().ok()
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let count: u64 = value(text, name)?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(count * 1024)
}

#[cfg(test)]
mod tests {
    use super::{Process, kibibytes, number};

    #[test]
    fn memory_has_a_high_water_mark_and_a_present_value() {
        let status = "Name:\tx\nVmPeak:\t  999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(kibibytes(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1 << 10));
        assert_eq!(kibibytes("Name:\tx\n", "VmHWM:"), None);
        let this = Process(std::process::id());
        assert!(this.memory_peak().is_some_and(|bytes| bytes > 1 << 20));
        assert!(this.memory().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn written_bytes_are_not_those_that_were_cancelled() {
        let io = "wchar: 7\nwrite_bytes: 4096\ncancelled_write_bytes: 12\n";
        assert_eq!(number(io, "write_bytes:"), Some(4096));
        assert_eq!(number("wchar: 7\n", "write_bytes:"), None);
    }
}
