//! `daftari inspect`: what a data file holds, read with the on-disk layouts alone.
//!
//! * Nothing is ever written, and nothing is repaired.
//! * A file that a server has open is refused, unless `--live` says that answers may be out of date.
//! * Nothing that was read is believed before its checksum was found right, but in `inspect block`,
//!   which says so.

mod checkpoint;
mod compare;
mod document;
mod file;
mod integrity;
mod journal;
mod manifest;
mod progress;
mod structure;
mod superblock;

#[cfg(test)]
mod tests;

use super::{parse, version};
use clap::{Args, Subcommand};
pub use document::Form;
use document::{Cell, Document};
pub use file::DataFile;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  daftari inspect superblock ledger.daftari
  daftari inspect journal --output=json ledger.daftari
  daftari inspect trees ledger.daftari
  daftari inspect block --address=12 ledger.daftari
  daftari inspect integrity ledger.daftari
      Exit status 0 when the file is whole, 1 when it is damaged.
  daftari inspect compare 0.daftari 1.daftari 2.daftari
      Whether replicas have the same checkpoint, byte by byte.";

/// What `inspect` is asked for.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// What to look at.
    #[command(subcommand)]
    pub topic: Topic,
}

/// What can be looked at.
#[derive(Clone, Debug, Subcommand)]
pub enum Topic {
    /// All copies of the superblock, and the one that counts.
    #[command(after_help = "Examples:\n  daftari inspect superblock ledger.daftari")]
    Superblock(Target),
    /// The slots of the journal.
    #[command(after_help = "Examples:\n  daftari inspect journal --output=json ledger.daftari")]
    Journal(Target),
    /// The blocks of the last checkpoint, table by table.
    #[command(after_help = "Examples:\n  daftari inspect checkpoint ledger.daftari")]
    Checkpoint(Target),
    /// The records of the last checkpoint's manifest.
    #[command(after_help = "Examples:\n  daftari inspect manifest ledger.daftari")]
    Manifest(Target),
    /// The trees: runs by tier, merges in progress, what is in memory, and the clock.
    #[command(after_help = "Examples:\n  daftari inspect trees ledger.daftari")]
    Trees(Target),
    /// Tables and trees: records, blocks, bytes, and how much of the blocks they fill.
    #[command(after_help = "Examples:\n  daftari inspect tables --output=json ledger.daftari")]
    Tables(Target),
    /// The header of one block, whatever it is.
    #[command(after_help = "Examples:\n  daftari inspect block --address=12 ledger.daftari")]
    Block(BlockTarget),
    /// Every checksum in the file, and whether what is in its blocks fits together.
    #[command(after_help = "Examples:\n  daftari inspect integrity ledger.daftari")]
    Integrity(Target),
    /// Whether the checkpoints of several replicas are the same, byte by byte.
    #[command(after_help = "Examples:\n  daftari inspect compare 0.daftari 1.daftari 2.daftari")]
    Compare(CompareTarget),
    /// The limits that are compiled in.
    #[command(after_help = "Examples:\n  daftari inspect constants --output=json")]
    Constants(ConstantsTarget),
}

/// A data file, and how to print.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Read although a server has the file open; what is read may be out of date or torn.
    #[arg(long)]
    pub live: bool,
    /// Tables for people, or JSON.
    #[arg(long, value_enum, default_value_t = Form::Table)]
    pub output: Form,
    /// The data file.
    pub file: PathBuf,
}

/// A block of a data file.
#[derive(Args, Clone, Debug)]
pub struct BlockTarget {
    /// Address of the block, from 1.
    #[arg(long, value_parser = parse::number)]
    pub address: u64,
    /// Where it is.
    #[command(flatten)]
    pub target: Target,
}

/// Data files to compare, and how to print.
#[derive(Args, Clone, Debug)]
pub struct CompareTarget {
    /// Read although servers have the files open; what is read may be out of date or torn.
    #[arg(long)]
    pub live: bool,
    /// Tables for people, or JSON.
    #[arg(long, value_enum, default_value_t = Form::Table)]
    pub output: Form,
    /// The data files, two or more.
    #[arg(required = true, num_args = 2..)]
    pub files: Vec<PathBuf>,
}

/// How to print what is in no file.
#[derive(Args, Clone, Debug)]
pub struct ConstantsTarget {
    /// Tables for people, or JSON.
    #[arg(long, value_enum, default_value_t = Form::Table)]
    pub output: Form,
}

/// Reads and prints.
///
/// # Errors
/// When the file cannot be read or is not a data file, and when it is found damaged.
pub fn run(options: &Options) -> anyhow::Result<()> {
    match &options.topic {
        Topic::Superblock(target) => {
            let (document, verdict) = superblock::run(&target.open()?);
            document.print(target.output)?;
            verdict
        }
        Topic::Journal(target) => journal::run(&target.open()?)?.print(target.output),
        Topic::Checkpoint(target) => checkpoint::run(&target.open()?)?.print(target.output),
        Topic::Manifest(target) => manifest::run(&target.open()?)?.print(target.output),
        Topic::Trees(target) => manifest::run_trees(&target.open()?)?.print(target.output),
        Topic::Tables(target) => manifest::run_tables(&target.open()?)?.print(target.output),
        Topic::Block(block) => {
            checkpoint::run_block(&block.target.open()?, block.address)?.print(block.target.output)
        }
        Topic::Integrity(target) => {
            let (document, verdict) = integrity::run(&target.open()?)?;
            document.print(target.output)?;
            verdict
        }
        Topic::Compare(target) => {
            let (document, verdict) = compare::run(&target.files, target.live)?;
            document.print(target.output)?;
            verdict
        }
        Topic::Constants(target) => constants().print(target.output),
    }
}

impl Target {
    fn open(&self) -> anyhow::Result<DataFile> {
        DataFile::open(&self.file, self.live)
    }
}

fn constants() -> Document {
    let mut document = Document::default();
    let limits = version::limits();
    document.fields(
        "constants",
        limits.into_iter().map(|(name, value)| (name, value.into())),
    );
    document.fields(
        "releases",
        [
            ("protocol", crate::constants::RELEASE),
            ("client_min", crate::constants::RELEASE_CLIENT_MIN),
            ("client_max", crate::constants::RELEASE_CLIENT_MAX),
            ("log_min", crate::constants::RELEASE_LOG_MIN),
            ("log_max", crate::constants::RELEASE_LOG_MAX),
        ]
        .map(|(name, release)| (name, Cell::from(crate::constants::release_text(release)))),
    );
    document
}
