//! Images made without Docker: one static program and what runs it, as an archive that `ctr images import` and
//! `docker load` take (<https://github.com/moby/docker-image-spec/blob/main/spec.md>).

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

/// What is in an image: one program in an otherwise empty file system.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    /// Name and tag, such as `localhost/worker:1`.
    pub name: &'a str,
    /// The program on this machine: linked statically, for there is no library in the image.
    pub program: &'a Path,
    /// Arguments that the program gets when the pod names none.
    pub arguments: &'a [&'a str],
    /// Who runs it, as `uid` or `uid:gid`; empty for root.
    pub user: &'a str,
}

impl Image<'_> {
    /// Writes the archive. The program lies at `/<its file name>` and is the entry point. The same program makes
    /// the same archive, byte for byte.
    ///
    /// # Errors
    ///
    /// The program cannot be read, has no name, or the archive cannot be written.
    pub fn write(&self, archive: &Path) -> io::Result<()> {
        let program = fs::read(self.program)?;
        let name = self.program.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| io::Error::other("the program has no name in UTF-8"))?;

        let mut layer = Vec::with_capacity(program.len() + 4096);
        append(&mut layer, name, 0o755, &program)?;
        layer.extend([0; 1024]);
        let digest = Sha256::digest(&layer)
            .iter()
            .fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").expect("invariant: a string takes everything");
                text
            });
        let mut entrypoint = vec![format!("/{name}")];
        entrypoint.extend(self.arguments.iter().map(|&argument| argument.to_owned()));
        let config = serde_json::json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Entrypoint": entrypoint[..1], "Cmd": entrypoint[1..], "User": self.user, "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        });
        let manifest = serde_json::json!([
            { "Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"] }
        ]);

        let mut tar = Vec::with_capacity(layer.len() + 8192);
        append(&mut tar, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
        append(&mut tar, "config.json", 0o644, config.to_string().as_bytes())?;
        append(&mut tar, "layer.tar", 0o644, &layer)?;
        tar.extend([0; 1024]);
        fs::write(archive, tar)
    }
}

/// As images name it: <https://go.dev/doc/install/source#environment>.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Appends a file of root's to a tar archive in the format of POSIX.1-1988 (`ustar`).
fn append(tar: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
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
    put(156, "0");
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
    use super::{Image, append};
    use std::path::Path;
    use std::process::Command;

    #[test]
    fn tar_reads_the_archive() {
        let dir = std::env::temp_dir().join(testkit::unique("image"));
        std::fs::create_dir(&dir).unwrap();
        let archive = dir.join("image.tar");
        let image = Image {
            name: "localhost/true:1",
            program: Path::new("/bin/true"),
            arguments: &["serve"],
            user: "65532",
        };
        image.write(&archive).unwrap();
        let unpack = Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(&dir)
            .status();
        assert!(unpack.unwrap().success());
        let list = Command::new("tar")
            .arg("-tvf")
            .arg(dir.join("layer.tar"))
            .output()
            .unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        assert!(list.starts_with("-rwxr-xr-x 0/0"), "{list}");
        assert!(list.trim().ends_with(" true"), "{list}");
        let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/true"]));
        assert_eq!(config["config"]["Cmd"], serde_json::json!(["serve"]));
        let sum = Command::new("sha256sum")
            .arg(dir.join("layer.tar"))
            .output()
            .unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        let digest = config["rootfs"]["diff_ids"][0].as_str().unwrap();
        assert_eq!(Some(digest.trim_start_matches("sha256:")), sum.split(' ').next());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let refused = append(&mut Vec::new(), &"n".repeat(101), 0o644, b"");
        assert!(refused.unwrap_err().to_string().contains("100 bytes"));
    }
}
