//! Standard output of all subcommands. Whoever reads it may go before its end, and the disk behind it may be full: both end the process, the first
//! quietly.

use std::{
    fmt,
    io::{self, Write},
    process,
};

/// Writes text.
pub(crate) fn write(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) else {
        return;
    };
    if error.kind() == io::ErrorKind::BrokenPipe {
        process::exit(0);
    }
    eprintln!("kith: standard output cannot be written: {error}");
    process::exit(1);
}

/// As the standard library's, but no panic follows when nothing can be written.
macro_rules! print {
    ($($text:tt)*) => { $crate::cli::out::write(format_args!($($text)*)) };
}

/// As the standard library's, but no panic follows when nothing can be written.
macro_rules! println {
    () => { $crate::cli::out::write(format_args!("\n")) };
    ($($text:tt)*) => { $crate::cli::out::write(format_args!("{}\n", format_args!($($text)*))) };
}
