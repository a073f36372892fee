//! What may be typed: the options that all commands share, and the list of commands. The options of one command are
//! declared in its own file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{
    append, bench, check, clear, completions, count, del, drop, examples, export, flush, get, import, increment, lock,
    merge, numbers, put, repair, scan, serve, sessions, status, watch,
};
use crate::proto::Durability;

/// Version and commit, as `--version` tells them.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("COMMONHOLD_COMMIT"), ")");

/// What follows the help.
const EXIT_CODES: &str = "Exit codes: 0 done, 1 not found, 2 usage or invalid input, 3 no daemon, 4 refused, 5 damage, \
                          6 outcome unknown, 7 unavailable, 8 timed out.";

/// One daemon owns a directory of JSON namespaces; many processes share it.
#[derive(Debug, Parser)]
#[command(name = "commonhold", version = VERSION, after_help = EXIT_CODES, max_term_width = 120)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options that every command takes, before or after its name.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// The store: the directory that the daemon owns.
    #[arg(
        long,
        global = true,
        env = "COMMONHOLD_STORE",
        value_name = "DIR",
        default_value = ".",
        hide_env_values = true
    )]
    pub(super) store: PathBuf,
    /// The workspace (a subdirectory of the store); without it, the store's own directory. Locks and slots are the whole store's.
    #[arg(long, global = true, value_name = "W")]
    pub(super) workspace: Option<String>,
    /// Answers and errors as JSON, as docs/cli.md describes it.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say more on standard error; twice says all.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Say nothing on standard error but errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// How `serve` writes its log: as text, or with --json as JSON, if this does not say it.
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub(super) log_format: Option<LogFormat>,
}

/// Which namespace a command means.
#[derive(Debug, Args)]
pub(super) struct NamespaceArgs {
    /// The namespace.
    #[arg(value_name = "NS", value_parser = numbers::unmarked)]
    pub(super) name: String,
    /// The volatile namespace of this name: in the daemon's memory alone, never a file, gone with the daemon.
    #[arg(long)]
    pub(super) volatile: bool,
}

/// How the daemon's log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

/// How far a write has got when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DurabilityArg {
    /// In the daemon's memory: a killed daemon loses what it had not written yet, about the last second.
    Memory,
    /// In the operating system's hands: a killed daemon loses nothing, a power cut about the last 2 seconds.
    Buffered,
    /// On the platter: nothing loses it.
    Synced,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Memory => Self::Memory,
            DurabilityArg::Buffered => Self::Buffered,
            DurabilityArg::Synced => Self::Synced,
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon of a store, in the foreground.
    #[command(after_help = examples::SERVE)]
    Serve(serve::ServeArgs),
    /// Tell how the daemon is.
    #[command(after_help = examples::STATUS)]
    Status(status::StatusArgs),
    /// Print the values of keys.
    #[command(after_help = examples::GET)]
    Get(get::GetArgs),
    /// Store a value.
    #[command(after_help = examples::PUT)]
    Put(put::PutArgs),
    /// Set fields of a record, and leave its others as they are.
    #[command(after_help = examples::MERGE)]
    Merge(merge::MergeArgs),
    /// Add to a number in a field of a record.
    #[command(after_help = examples::INCREMENT)]
    Increment(increment::IncrementArgs),
    /// Add items to the end of a list in a field of a record.
    #[command(after_help = examples::APPEND)]
    Append(append::AppendArgs),
    /// Delete records.
    #[command(after_help = examples::DEL)]
    Del(del::DelArgs),
    /// List keys, in insertion order.
    #[command(after_help = examples::KEYS)]
    Keys(scan::ScanArgs),
    /// Print records as JSON lines, in insertion order.
    #[command(after_help = examples::SCAN)]
    Scan(scan::ScanArgs),
    /// Count the records of a namespace.
    #[command(after_help = examples::COUNT)]
    Count(count::CountArgs),
    /// Delete every record of a namespace.
    #[command(after_help = examples::CLEAR)]
    Clear(clear::ClearArgs),
    /// Remove a namespace with its file.
    #[command(after_help = examples::DROP)]
    Drop(drop::DropArgs),
    /// List the namespaces.
    #[command(after_help = examples::NAMESPACES)]
    Namespaces,
    /// List the workspaces.
    #[command(after_help = examples::WORKSPACES)]
    Workspaces,
    /// List who is connected, or end a session.
    #[command(after_help = examples::SESSIONS)]
    Sessions(sessions::SessionsArgs),
    /// List who holds locks, and who waits for them, of the whole store.
    #[command(after_help = examples::LOCKS)]
    Locks,
    /// List the update flags of all sessions.
    #[command(after_help = examples::FLAGS)]
    Flags,
    /// List the groups of slots of the whole store, who has some, and who waits.
    #[command(after_help = examples::SLOTS)]
    Slots,
    /// Run a command under a lock, which lives as long as it does.
    ///
    /// Exit codes: those of the command; before it runs 124 timed out, 125 refused or no daemon, 126 it cannot be run, 127
    /// there is no such command.
    #[command(after_help = examples::LOCK)]
    Lock(lock::LockArgs),
    /// Print what is changed in a namespace, as it is changed, a JSON line for each write.
    #[command(after_help = examples::WATCH)]
    Watch(watch::WatchArgs),
    /// Put every acknowledged write on the platter.
    #[command(after_help = examples::COMMIT)]
    Commit,
    /// Bring the JSON files up to date.
    #[command(after_help = examples::FLUSH)]
    Flush(flush::FlushArgs),
    /// Store the records of a file.
    #[command(after_help = examples::IMPORT)]
    Import(import::ImportArgs),
    /// Write the records of a namespace to a file.
    #[command(after_help = examples::EXPORT)]
    Export(export::ExportArgs),
    /// Tell what is wrong with a store that no daemon owns, and what can be done.
    #[command(after_help = examples::CHECK)]
    Check(check::CheckArgs),
    /// Settle what keeps a namespace closed or a store from starting.
    #[command(after_help = examples::REPAIR)]
    Repair(repair::RepairArgs),
    /// Put a load on the daemon and tell how it bore it.
    #[command(after_help = examples::BENCH)]
    Bench(bench::BenchArgs),
    /// Stop the daemon, after it has flushed everything.
    #[command(after_help = examples::STOP)]
    Stop,
    /// Print a completion script.
    #[command(after_help = examples::COMPLETIONS)]
    Completions(completions::CompletionsArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_declared_options_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_negative_number_is_a_value_and_an_option_after_it_still_an_option() {
        let cli = Cli::try_parse_from(["commonhold", "put", "n", "k", "-Infinity", "--if-absent"]).expect("parses");
        let Command::Put(args) = cli.command else { panic!("put") };
        assert_eq!(args.value, "-Infinity");
        assert!(args.write.if_absent);
        let cli = Cli::try_parse_from(["commonhold", "put", "n", "k", "--if-seq", "3", "-5"]).expect("parses");
        let Command::Put(args) = cli.command else { panic!("put") };
        assert_eq!((args.value.as_str(), args.write.if_seq), ("-5", Some(3)));
        let cli = Cli::try_parse_from(["commonhold", "put", "n", "k", "-"]).expect("parses");
        let Command::Put(args) = cli.command else { panic!("put") };
        assert_eq!(args.value, "-");
    }
}
