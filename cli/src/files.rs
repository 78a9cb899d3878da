//! Files that are named on a command line, and those below a directory.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The files that are meant: those named, and of a directory all below it that are wanted, in the order of their names.
pub(crate) fn below(
    named: &[PathBuf],
    is_wanted: impl Fn(&Path) -> bool,
    nothing: &str,
) -> Result<Vec<PathBuf>, ExitCode> {
    let mut files = Vec::new();
    for file in named {
        if !file.is_dir() {
            files.push(file.clone());
            continue;
        }
        let before = files.len();
        within(file, &is_wanted, &mut files).map_err(|error| {
            eprintln!("error: cannot read directory {}: {error}", file.display());
            ExitCode::FAILURE
        })?;
        if files.len() == before {
            eprintln!("error: no file in {} {nothing}", file.display());
            return Err(ExitCode::FAILURE);
        }
    }
    Ok(files)
}

fn within(
    directory: &Path,
    is_wanted: &impl Fn(&Path) -> bool,
    files: &mut Vec<PathBuf>,
) -> std::io::Result<()> {
    let entries = std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    for path in paths {
        // Links may go round.
        if path.is_dir() && !path.is_symlink() {
            within(&path, is_wanted, files)?;
        } else if is_yaml(&path) && is_wanted(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn is_yaml(path: &Path) -> bool {
    let extension = path.extension();
    extension.is_some_and(|extension| extension == "yaml" || extension == "yml")
}
