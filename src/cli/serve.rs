//! `serve [DIR]`: the daemon itself, in the foreground, with its log on standard error.

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::args::{DurabilityArg, LogFormat};
use super::context::Context;
use super::detach;
use super::failure::Failure;
use super::human;
use crate::daemon::{self, OnDiskFailure, Preload, ServeOptions, Shutdown};
use crate::json::FileFormat;

/// Options of `serve`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct ServeArgs {
    /// The store's directory; without it, the one that --store names.
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How durable a write is before it is answered.
    #[arg(long, value_enum, default_value_t = DurabilityArg::Buffered, value_name = "D")]
    durability: DurabilityArg,
    /// How namespace files are written: a record a line, or as Python's json.dump(indent=2) does.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "lines",
        value_parser = PossibleValuesParser::new(["lines", "pretty"])
            .map(|word| FileFormat::from_str(&word).expect("both words name a format"))
    )]
    file_format: FileFormat,
    /// How many earlier files of each namespace are kept in .commonhold/generations.
    #[arg(long, value_name = "N", default_value_t = 2)]
    keep: u32,
    /// Load these namespaces at the start instead of at their first use: a name, workspace/name, or `all`.
    #[arg(long, value_name = "NS")]
    preload: Vec<String>,
    /// How long a flush waits for a program that holds the lock of the file.
    /// 0s is not to wait.
    #[arg(long, value_name = "T", default_value = "30s", value_parser = human::parse_span)]
    flush_lock_timeout: Duration,
    /// End when no session has been open for so long, as `10min`; 100ms is the least. Without it the daemon stays.
    #[arg(long, value_name = "T", value_parser = idle_exit)]
    idle_exit: Option<Duration>,
    /// Let this user in as well, by number; may be repeated. They connect at .commonhold-shared/socket.
    #[arg(long, value_name = "U")]
    allow_uid: Vec<u32>,
    /// Most memory that records, indexes and old versions may take, as 512M or 2G; a write that would need more is
    /// refused. 1M is the least; without it there is no limit.
    #[arg(long, value_name = "S", value_parser = max_memory)]
    max_memory: Option<u64>,
    /// How large the journal may grow before the daemon flushes by itself; else the larger of 256 MiB and half the data.
    /// 1M is the least.
    #[arg(long, value_name = "S", value_parser = journal_limit)]
    journal_limit: Option<u64>,
    /// What to do when the disk has ended all writing, after bringing to safety what can be: serve reads, or end.
    #[arg(long, value_name = "WHAT", default_value = "stay", value_parser = ["stay", "exit"])]
    on_disk_failure: String,
    /// Serve a store on a network file system all the same. Only this machine may use it.
    #[arg(long)]
    allow_network_fs: bool,
    /// Serve in the background, with the log in .commonhold/daemon.log; the command returns when clients can connect.
    #[arg(long)]
    detach: bool,
    /// What --detach runs: this program in the background, whose parent waits for its word.
    #[arg(long, hide = true, conflicts_with = "detach")]
    background: bool,
    /// Say on standard output when clients can connect.
    #[arg(long, hide = true)]
    announce: bool,
}

fn idle_exit(text: &str) -> Result<Duration, String> {
    let instead = "leave it out for a daemon that stays";
    human::at_least(human::parse_span(text)?, Duration::from_millis(100), "100ms", instead)
}

fn max_memory(text: &str) -> Result<u64, String> {
    human::at_least(human::parse_size(text)?, LEAST_SIZE, "1M", "leave it out for no limit")
}

fn journal_limit(text: &str) -> Result<u64, String> {
    human::at_least(human::parse_size(text)?, LEAST_SIZE, "1M", "leave it out for one that grows with the data")
}

/// Less than this holds hardly a request.
const LEAST_SIZE: u64 = 1 << 20;

/// Runs the command.
pub(super) fn run(args: ServeArgs, context: &Context) -> Result<(), Failure> {
    if args.detach {
        return detach::launch(args.dir.as_deref().unwrap_or(context.store()), context);
    }
    let mut dir = args.dir.unwrap_or_else(|| context.store().to_owned());
    if args.background {
        // Only an empty path or a directory that is gone has no absolute one; that the store is not there is told below.
        dir = std::path::absolute(&dir).unwrap_or(dir);
        detach::leave();
    }
    let level = match (context.quiet(), context.verbosity()) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    // With --json a reader of standard error expects JSON, line by line.
    let format = match context.log_format().unwrap_or(if context.json() { LogFormat::Json } else { LogFormat::Text }) {
        LogFormat::Text => daemon::LogFormat::Text,
        LogFormat::Json => daemon::LogFormat::Json,
    };
    let preload = preload(&args.preload)?;
    daemon::use_one_heap();
    daemon::set_up_logging(format, level);
    daemon::install_panic_hook();
    let mut options = ServeOptions::new(dir);
    options.store.durability = args.durability.into();
    options.store.file_format = args.file_format;
    options.store.keep = args.keep;
    options.store.flush_lock_timeout = args.flush_lock_timeout;
    options.store.max_memory = args.max_memory;
    options.store.journal_limit = args.journal_limit;
    options.on_disk_failure = if args.on_disk_failure == "exit" { OnDiskFailure::Exit } else { OnDiskFailure::Stay };
    options.preload = preload;
    options.allow_network_fs = args.allow_network_fs;
    options.idle_exit = args.idle_exit;
    options.allow_uids = args.allow_uid;
    if args.background {
        options.on_ready = Some(Arc::new(detach::settle));
    } else if args.announce {
        options.on_ready = Some(Arc::new(|_: &Path| detach::announce()));
    }
    let ended = daemon::run(options, Shutdown::on_signals());
    if let (Err(error), true) = (&ended, args.background) {
        detach::tell_owned(error);
    }
    Ok(ended?)
}

fn preload(names: &[String]) -> Result<Preload, Failure> {
    use crate::proto::Place;
    if names.is_empty() {
        return Ok(Preload::None);
    }
    if names.iter().any(|name| name == "all") {
        return Ok(Preload::All);
    }
    let place = |name: &String| {
        let (workspace, namespace) = name.rsplit_once('/').unwrap_or(("", name));
        Place::new(workspace, namespace)
    };
    Ok(Preload::These(names.iter().map(place).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_that_make_no_sense_are_refused_with_the_least() {
        for (least, less) in [("1M", "0"), ("1M", "1"), ("1048576", "1048575")] {
            assert!(max_memory(least).is_ok() && journal_limit(least).is_ok());
            assert!(max_memory(less).unwrap_err().contains("1M is the least; leave it out for no limit"));
            assert!(journal_limit(less).unwrap_err().contains("1M is the least"));
        }
        assert_eq!(idle_exit("100ms"), Ok(Duration::from_millis(100)));
        assert!(idle_exit("0").unwrap_err().contains("100ms is the least; leave it out for a daemon that stays"));
    }
}
