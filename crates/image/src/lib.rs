//! Images made without Docker: one static program and what runs it, as an archive that `docker load`, `ctr images
//! import` and `kind load image-archive` take (<https://github.com/moby/docker-image-spec/blob/main/spec.md>).
//!
//! `tools/images` makes those of the product with it, and `tests/cluster` those of tests.

mod tar;

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

/// A file that an image has beside its program. Everybody may read it.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Where it lies in the image, such as `/etc/nsswitch.conf`.
    pub path: &'a str,
    /// What is in it.
    pub content: &'a [u8],
}

impl Image<'_> {
    /// Writes the archive. The program lies at `/<its file name>` and is the entry point. The same program makes
    /// the same archive, byte for byte.
    ///
    /// # Errors
    ///
    /// The program cannot be read, has no name, or the archive cannot be written.
    pub fn write(&self, archive: &Path) -> io::Result<()> {
        fs::write(archive, self.archive(&[])?)
    }

    /// The archive, as [`write`](Self::write) writes it, of an image that has `files` as well.
    ///
    /// # Errors
    ///
    /// The program cannot be read or has no name, or a file's path is longer than the 100 bytes that there are for it.
    pub fn archive(&self, files: &[File<'_>]) -> io::Result<Vec<u8>> {
        let program = fs::read(self.program)?;
        let name = self.program.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| io::Error::other("the program has no name in UTF-8"))?;

        let layer = layer(name, &program, files)?;
        let mut entrypoint = vec![format!("/{name}")];
        entrypoint.extend(self.arguments.iter().map(|&argument| argument.to_owned()));
        let config = serde_json::json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Entrypoint": entrypoint[..1], "Cmd": entrypoint[1..], "User": self.user, "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))] },
        });
        let manifest = serde_json::json!([
            { "Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"] }
        ]);

        let mut archive = Vec::with_capacity(layer.len() + 8192);
        tar::append_file(
            &mut archive,
            "manifest.json",
            0o644,
            manifest.to_string().as_bytes(),
        )?;
        tar::append_file(&mut archive, "config.json", 0o644, config.to_string().as_bytes())?;
        tar::append_file(&mut archive, "layer.tar", 0o644, &layer)?;
        tar::end(&mut archive);
        Ok(archive)
    }
}

/// The image's file system. Directories are written out, because what tools make of one that is not differs.
fn layer(name: &str, program: &[u8], files: &[File<'_>]) -> io::Result<Vec<u8>> {
    let mut layer = Vec::with_capacity(program.len() + 4096);
    tar::append_file(&mut layer, name, 0o755, program)?;
    let mut made: Vec<&str> = Vec::new();
    for file in files {
        let path = file.path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            let directory = &path[..=end];
            if !made.contains(&directory) {
                tar::append_directory(&mut layer, directory)?;
                made.push(directory);
            }
        }
        tar::append_file(&mut layer, path, 0o644, file.content)?;
    }
    tar::end(&mut layer);
    Ok(layer)
}

/// The SHA-256 in hexadecimal digits.
fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("invariant: a string takes everything");
            text
        })
}

/// As images name it: <https://go.dev/doc/install/source#environment>.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::{File, Image};
    use std::path::Path;
    use std::process::Command;

    fn image() -> Image<'static> {
        Image {
            name: "localhost/true:1",
            program: Path::new("/bin/true"),
            arguments: &["serve"],
            user: "65532",
        }
    }

    fn output(command: &mut Command) -> String {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn tar_reads_the_archive() {
        let dir = std::env::temp_dir().join(testkit::unique("image"));
        std::fs::create_dir(&dir).unwrap();
        let archive = dir.join("image.tar");
        image().write(&archive).unwrap();
        output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&dir));
        let layer = dir.join("layer.tar");
        let list = output(Command::new("tar").arg("-tvf").arg(&layer));
        assert!(list.starts_with("-rwxr-xr-x 0/0"), "{list}");
        assert!(list.trim().ends_with(" true"), "{list}");
        let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/true"]));
        assert_eq!(config["config"]["Cmd"], serde_json::json!(["serve"]));
        let sum = output(Command::new("sha256sum").arg(&layer));
        let digest = config["rootfs"]["diff_ids"][0].as_str().unwrap();
        assert_eq!(Some(digest.trim_start_matches("sha256:")), sum.split(' ').next());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn files_lie_in_directories_of_their_own() {
        let dir = std::env::temp_dir().join(testkit::unique("image"));
        std::fs::create_dir(&dir).unwrap();
        let files = [
            File {
                path: "/etc/nsswitch.conf",
                content: b"hosts: files dns\n",
            },
            File {
                path: "/etc/ssl/certs/ca.crt",
                content: b"certificates",
            },
        ];
        let layer = dir.join("layer.tar");
        std::fs::write(&layer, super::layer("true", b"program", &files).unwrap()).unwrap();
        let list = output(Command::new("tar").arg("-tf").arg(&layer));
        let expected = "true\netc/\netc/nsswitch.conf\netc/ssl/\netc/ssl/certs/\netc/ssl/certs/ca.crt\n";
        assert_eq!(list, expected);
        output(Command::new("tar").arg("-xf").arg(&layer).arg("-C").arg(&dir));
        assert_eq!(
            std::fs::read(dir.join("etc/ssl/certs/ca.crt")).unwrap(),
            b"certificates"
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_same_program_makes_the_same_archive() {
        assert!(image().archive(&[]).unwrap() == image().archive(&[]).unwrap());
    }
}
