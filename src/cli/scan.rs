//! `scan NS`: the records in insertion order, as JSON lines that `import --format lines` reads.

use clap::Args;

use super::args::NamespaceArgs;
use super::context::Context;
use super::failure::Failure;
use super::output::{Out, push_record};
use crate::client;
use crate::client::blocking::{Entry, Scan};

/// Options of `scan` and of `keys`.
#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Only keys that begin so.
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    prefix: String,
    /// At most so many.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl ScanArgs {
    /// The namespace.
    pub(super) fn namespace(&self) -> &NamespaceArgs {
        &self.namespace
    }

    /// The records asked for, in insertion order.
    pub(super) fn records(&self, scan: Scan) -> impl Iterator<Item = Result<Entry, client::Error>> {
        let limit = self.limit.unwrap_or(u64::MAX);
        // A few records should not cost a page full of them; 0 leaves the page's size to the daemon.
        let page = u32::try_from(limit).unwrap_or(0);
        scan.prefix(&self.prefix).page(page).take(usize::try_from(limit).unwrap_or(usize::MAX))
    }
}

/// Runs the command.
pub(super) fn run(args: &ScanArgs, context: &Context) -> Result<(), Failure> {
    let (_client, namespace) = context.namespace(args.namespace())?;
    let mut out = Out::new();
    let mut line = Vec::new();
    for entry in args.records(namespace.scan()) {
        let entry = entry?;
        line.clear();
        push_record(&mut line, &entry.key, Some(&entry.value), context.json().then_some(entry.seq.0));
        out.bytes(&line)?;
    }
    out.finish()
}
