//! `image NAME PROGRAM ARCHIVE [PATH=FILE]…`: writes the archive of an image with one static program, and says whether
//! it was another one before. Beside the program there are copies of the files, at the paths that are named. It is run
//! by user 65532, as the Helm chart says too. See `tools/images`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use image::{File, Image};
use std::env::args;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// `nonroot` of well-known small images, and the user that the injector writes for sidecars.
const USER: &str = "65532:65532";

fn main() -> ExitCode {
    let arguments: Vec<String> = args().skip(1).collect();
    let [name, program, archive, files @ ..] = arguments.as_slice() else {
        eprintln!("usage: image NAME PROGRAM ARCHIVE [PATH=FILE]…");
        return ExitCode::from(2);
    };
    match make(name, Path::new(program), Path::new(archive), files) {
        Ok(true) => println!("changed"),
        Ok(false) => println!("unchanged"),
        Err(error) => {
            eprintln!("image {name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Whether the archive is another one now. One that is not is left as it is, so that what depends on it need not be
/// made again.
fn make(name: &str, program: &Path, archive: &Path, files: &[String]) -> io::Result<bool> {
    let read = |pair: &String| {
        let (path, file) = pair
            .split_once('=')
            .ok_or_else(|| io::Error::other(format!("{pair} is not PATH=FILE")))?;
        let content = std::fs::read(file).map_err(|error| io::Error::other(format!("{file}: {error}")))?;
        Ok((path.to_owned(), content))
    };
    let files = files.iter().map(read).collect::<io::Result<Vec<_>>>()?;
    let files: Vec<File<'_>> = files
        .iter()
        .map(|(path, content)| File { path, content })
        .collect();
    let image = Image {
        name,
        program,
        arguments: &[],
        user: USER,
    };
    let made = image.archive(&files)?;
    if std::fs::read(archive).is_ok_and(|present| present == made) {
        return Ok(false);
    }
    // Beside its place first, so that nobody loads half an image.
    let beside = archive.with_extension("tar.new");
    std::fs::write(&beside, made)?;
    std::fs::rename(&beside, archive)?;
    Ok(true)
}
