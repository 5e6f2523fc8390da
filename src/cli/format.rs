//! `daftari format`: makes a data file.

use super::exit::{Status, failure};
use super::parse;
use crate::constants::{
    BLOCK_SIZE, MESSAGE_SIZE_MAX, PREPARE_ENTRIES_SIZE, REPLICA_COUNT_MAX, SESSIONS_DEFAULT,
    STANDBY_COUNT_MAX,
};
use crate::driver::{self, FormatOptions};
use crate::server::{self, DataFile};
use crate::vsr::Releases;
use clap::Args;
use std::path::PathBuf;
use storage_format::Geometry;

const EXAMPLES: &str = "\
Examples:
  daftari format --cluster=0 --replica=0 --replica-count=1 ledger.daftari
  daftari format --cluster=7 --replica=0 --replica-count=1 --limit-storage=512GiB /data/ledger
  daftari format --cluster=0 --replica=0 --replica-count=1 --development try.daftari

  daftari format --cluster=7 --replica=0 --replica-count=3 /data/ledger
  daftari format --cluster=7 --replica=1 --replica-count=3 /data/ledger
  daftari format --cluster=7 --replica=2 --replica-count=3 /data/ledger
      The files of three replicas, each on its own machine.
  daftari format --cluster=7 --standby=3 --replica-count=3 /data/ledger
      The file of a standby, which follows them and does not vote.

The file must not exist. Its sizes are chosen here, once and for all; the replicas of a cluster need the
same. Three replicas go on without any one of them, five without any two.

If the file of a standby is lost, make it again in the same way: a standby has promised nothing, and gets all
from the replicas. If the file of a replica of such a cluster is lost, `daftari recover` makes another one. Never use `format`
for that: what it makes believes that it never promised anything, and the others may lose transfers.";

/// Slots of the journal, unless told otherwise.
const JOURNAL_SLOTS_DEFAULT: u32 = 1024;
/// Slots of the journal for development: a file that is made and read in a moment.
const JOURNAL_SLOTS_DEVELOPMENT: u32 = 64;
/// Sessions for development.
const SESSIONS_DEVELOPMENT: u32 = 64;
/// How far a file may grow, unless told otherwise.
const STORAGE_DEFAULT: u64 = 16 << 40;

/// Sizes of a data file, which are the same for all replicas of a cluster.
#[derive(Args, Clone, Debug, Default)]
pub struct Sizes {
    /// A small file that is made quickly; not for production.
    #[arg(long)]
    pub development: bool,
    /// Clients that can have a session at the same time [default: 256; development: 64].
    #[arg(long, value_name = "COUNT", value_parser = parse::positive_u32)]
    pub sessions: Option<u32>,
    /// Requests that the journal holds, a multiple of 16 [default: 1024; development: 64].
    #[arg(long, value_name = "COUNT", value_parser = parse::positive_u32)]
    pub journal_slots: Option<u32>,
    /// Bytes that the file may grow to, as in 512GiB [default: 16TiB].
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub limit_storage: Option<u64>,
}

impl Sizes {
    fn geometry(&self) -> anyhow::Result<Geometry> {
        let (slots, sessions) = if self.development {
            (JOURNAL_SLOTS_DEVELOPMENT, SESSIONS_DEVELOPMENT)
        } else {
            (JOURNAL_SLOTS_DEFAULT, SESSIONS_DEFAULT)
        };
        let slots = self.journal_slots.unwrap_or(slots);
        let sessions = self.sessions.unwrap_or(sessions);
        let usage = |sentence: String| Err(failure(Status::Usage, sentence));
        if !slots.is_multiple_of(16) || !(48..=1 << 16).contains(&slots) {
            return usage(format!(
                "--journal-slots={slots}: write a multiple of 16 from 48 to 65_536"
            ));
        }
        if sessions > 1 << 16 {
            return usage(format!(
                "--sessions={sessions}: write a number from 1 to 65_536"
            ));
        }
        let fits = "a constant of far less than 4 GiB";
        let slot_size = MESSAGE_SIZE_MAX + PREPARE_ENTRIES_SIZE;
        let geometry = Geometry {
            message_size_max: u32::try_from(MESSAGE_SIZE_MAX).expect(fits).into(),
            journal_slot_count: slots.into(),
            journal_slot_size: u32::try_from(slot_size).expect(fits).into(),
            session_count_max: sessions.into(),
            block_size: u32::try_from(BLOCK_SIZE).expect(fits).into(),
            reserved: 0.into(),
            file_size_max: self.limit_storage.unwrap_or(STORAGE_DEFAULT).into(),
        };
        if !geometry.valid() {
            return usage(format!(
                "--limit-storage={}: the zones before the grid alone take {} bytes; allow more, or \
                 less of --journal-slots and --sessions",
                geometry.file_size_max,
                geometry.grid_offset()
            ));
        }
        Ok(geometry)
    }
}

/// Whose file it is.
#[derive(Args, Clone, Copy, Debug, Eq, PartialEq)]
#[group(required = true, multiple = false)]
pub struct Owner {
    /// Index of the replica that the file belongs to, from 0.
    #[arg(long, value_name = "INDEX")]
    replica: Option<u8>,
    /// Index of the standby that the file belongs to: they count on from the replicas, so the first one has
    /// the index --replica-count.
    #[arg(long, value_name = "INDEX")]
    standby: Option<u8>,
}

impl Owner {
    /// A replica.
    #[must_use]
    pub const fn replica(index: u8) -> Self {
        Self {
            replica: Some(index),
            standby: None,
        }
    }

    /// The index among the members of a cluster of so many replicas.
    fn index(self, replica_count: u8) -> anyhow::Result<u8> {
        let usage = |sentence: String| Err(failure(Status::Usage, sentence));
        let standbys = replica_count..replica_count + STANDBY_COUNT_MAX;
        match (self.replica, self.standby) {
            (Some(replica), _) if replica < replica_count => Ok(replica),
            (Some(replica), _) => usage(format!(
                "--replica={replica}: replicas count from 0, so it has to be below \
                 --replica-count={replica_count}; the file of a standby is made with --standby"
            )),
            (None, Some(standby)) if standbys.contains(&standby) => Ok(standby),
            (None, standby) => usage(format!(
                "--standby={}: standbys count on from the replicas, so with \
                 --replica-count={replica_count} write a number from {} to {}",
                standby.unwrap_or_default(),
                standbys.start,
                standbys.end - 1
            )),
        }
    }
}

/// What `format` is asked for.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Cluster that the file belongs to; clients have to name the same.
    #[arg(long, value_parser = parse::number_u128)]
    pub cluster: u128,
    /// Whose file it is.
    #[command(flatten)]
    pub owner: Owner,
    /// Replicas of the cluster, from 1 to 6.
    #[arg(long)]
    pub replica_count: u8,
    /// How large everything is.
    #[command(flatten)]
    pub sizes: Sizes,
    /// The data file.
    pub file: PathBuf,
}

impl Options {
    /// What `start --development` makes when the file is absent.
    #[must_use]
    pub fn development(cluster: u128, file: PathBuf) -> Self {
        Self {
            cluster,
            owner: Owner::replica(0),
            replica_count: 1,
            sizes: Sizes {
                development: true,
                ..Sizes::default()
            },
            file,
        }
    }

    /// The sizes of the file.
    ///
    /// # Errors
    /// When the values do not fit together.
    pub fn geometry(&self) -> anyhow::Result<Geometry> {
        let usage = |sentence: String| Err(failure(Status::Usage, sentence));
        if self.replica_count == 0 || self.replica_count > REPLICA_COUNT_MAX {
            return usage(format!(
                "--replica-count={}: write a number from 1 to {REPLICA_COUNT_MAX}",
                self.replica_count
            ));
        }
        let _index = self.owner.index(self.replica_count)?;
        self.sizes.geometry()
    }
}

/// Makes the file.
///
/// # Errors
/// When the options do not fit together, or the file cannot be made.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let geometry = options.geometry()?;
    if options.file.exists() {
        return Err(failure(
            Status::FileUnusable,
            format!(
                "{} exists already; remove it, or name another file",
                options.file.display()
            ),
        ));
    }
    make(options, &geometry, false)
}

/// Writes the file; the options were checked. What a failure leaves behind is removed.
pub(super) fn make(options: &Options, geometry: &Geometry, recovering: bool) -> anyhow::Result<()> {
    let file = DataFile::create(&options.file, geometry.grid_offset())?;
    let made = write(file, options, geometry, recovering);
    if made.is_err()
        && let Err(error) = std::fs::remove_file(&options.file)
    {
        tracing::warn!(%error, "the half-made file cannot be removed");
    }
    made
}

fn write(
    file: DataFile,
    options: &Options,
    geometry: &Geometry,
    recovering: bool,
) -> anyhow::Result<()> {
    // Space is claimed here, so that the journal never meets a full disk and never waits for the
    // filesystem to note that a block is in use.
    let journal = geometry.prepares_offset();
    file.write_zeros(0, journal)?;
    if !options.sizes.development {
        file.write_zeros(journal, geometry.replies_offset() - journal)?;
    }
    let format = FormatOptions {
        cluster: options.cluster,
        replica: options.owner.index(options.replica_count)?,
        replica_count: options.replica_count,
        geometry: *geometry,
        recovering,
        release: Releases::OF_BINARY.newest,
    };
    let formatted = server::block_on_file(file, move |storage| async move {
        Box::pin(driver::format(&storage, &format)).await
    })?;
    formatted?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Options, Owner, Sizes};

    fn options() -> Options {
        Options {
            sizes: Sizes::default(),
            ..Options::development(0, "file".into())
        }
    }

    fn standby(index: u8) -> Owner {
        Owner {
            replica: None,
            standby: Some(index),
        }
    }

    #[test]
    fn the_usual_sizes_are_valid() {
        let geometry = options().geometry().unwrap();
        assert!(geometry.valid());
        assert_eq!(geometry.journal_slot_count.get(), 1024);
        assert_eq!(geometry.session_count_max.get(), 256);
        let small = Options::development(0, "file".into()).geometry().unwrap();
        assert!(small.valid());
        assert!(small.grid_offset() < 256 << 20);
    }

    #[test]
    fn replicas_of_a_cluster_have_the_same_sizes() {
        let geometry = |owner| {
            let replica_count = 6;
            let options = Options {
                owner,
                replica_count,
                ..options()
            };
            options.geometry()
        };
        let first = geometry(Owner::replica(0)).unwrap();
        assert!((1..6).all(|replica| geometry(Owner::replica(replica)).unwrap() == first));
        assert!(geometry(Owner::replica(6)).is_err());
        assert!((6..12).all(|index| geometry(standby(index)).unwrap() == first));
        assert!(geometry(standby(5)).is_err() && geometry(standby(12)).is_err());
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let check = |options: Options, expected: &str| {
            let error = options.geometry().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            Options {
                replica_count: 7,
                ..options()
            },
            "--replica-count=7",
        );
        check(
            Options {
                replica_count: 0,
                ..options()
            },
            "--replica-count=0",
        );
        check(
            Options {
                owner: Owner::replica(1),
                ..options()
            },
            "--replica=1",
        );
        check(
            Options {
                owner: standby(0),
                ..options()
            },
            "write a number from 1 to 6",
        );
        let check_sizes = |sizes: Sizes, expected: &str| {
            let sizes = Options { sizes, ..options() };
            check(sizes, expected);
        };
        check_sizes(
            Sizes {
                journal_slots: Some(100),
                ..Sizes::default()
            },
            "--journal-slots=100",
        );
        check_sizes(
            Sizes {
                sessions: Some(70_000),
                ..Sizes::default()
            },
            "--sessions=70000",
        );
        check_sizes(
            Sizes {
                limit_storage: Some(4096),
                ..Sizes::default()
            },
            "--limit-storage=4096",
        );
    }
}
