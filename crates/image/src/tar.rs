//! Tar archives in the format of POSIX.1-1988 (`ustar`), of files and directories of root's, without times.

use std::io;

/// The `typeflag` of a file, and that of a directory.
const FILE: &str = "0";
const DIRECTORY: &str = "5";

/// Appends a file.
pub(crate) fn append_file(tar: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    append(tar, name, mode, FILE, content)
}

/// Appends a directory that everybody may read; its name ends with a slash.
pub(crate) fn append_directory(tar: &mut Vec<u8>, name: &str) -> io::Result<()> {
    append(tar, name, 0o755, DIRECTORY, b"")
}

/// Ends the archive.
pub(crate) fn end(tar: &mut Vec<u8>) {
    tar.extend([0; 1024]);
}

fn append(tar: &mut Vec<u8>, name: &str, mode: u32, kind: &str, content: &[u8]) -> io::Result<()> {
    if name.len() > 100 {
        return Err(io::Error::other(format!(
            "the name {name} is longer than the 100 bytes of a tar archive"
        )));
    }
    let mut header = [0; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", content.len()));
    put(136, "00000000000");
    // The sum is taken with blanks in its own place.
    put(148, "        ");
    put(156, kind);
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend(header);
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::append_file;

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let refused = append_file(&mut Vec::new(), &"n".repeat(101), 0o644, b"");
        assert!(refused.unwrap_err().to_string().contains("100 bytes"));
    }
}
