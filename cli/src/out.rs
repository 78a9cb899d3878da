//! What is printed for people and scripts. A reader that has gone, as `head` does, is no failure.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};

/// A line on standard output.
macro_rules! say {
    ($($part:tt)*) => {
        $crate::out::line(format_args!($($part)*))
    };
}
pub(crate) use say;

/// Prints a line.
pub(crate) fn line(line: Arguments<'_>) {
    text(format_args!("{line}\n"));
}

/// Prints a text that has its ends of lines.
pub(crate) fn text(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => eprintln!("error: cannot print: {error}"),
        Ok(()) | Err(_) => {}
    }
}
