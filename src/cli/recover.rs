//! `daftari recover`: makes a data file in the place of one that was lost.
#![expect(
    clippy::disallowed_types,
    reason = "whether the replica still runs is asked before there is a server"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the sockets of a killed process take a moment"
)]

use super::exit::{Status, failure};
use super::format::Owner;
use super::parse::{self, Addresses};
use super::{format, start};
use crate::constants::REPLICA_COUNT_MAX;
use clap::Args;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  daftari recover --cluster=7 --replica=2 \\
      --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 /data/ledger
  daftari start --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 /data/ledger
      The disk of the third of three replicas is gone: it gets a new file, and is started as before.

  daftari recover --cluster=7 --replica=2 --replica-count=3 \\
      --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000,10.0.0.9:3000 /data/ledger
      The same where the fourth address is that of a standby.

Only for a replica whose file is lost for good, and whose process does not run any more; if the file turns up
again, do not start it. The sizes have to be those that the cluster was made with: give --development,
--journal-slots, --sessions and --limit-storage as to `daftari format` then.

The new file has nothing yet. Once started, the replica waits until enough others have told what it may have
promised (of three: both, of five: three), has them start a new view, and gets everything else from them.
The log says how far it is. A cluster of one or two replicas has not enough others.";

/// How long the address of the replica may take to answer, if somebody is there.
const PROBE: Duration = Duration::from_secs(2);
/// How often it is tried, and what lies between: the sockets of a process that was killed just before
/// accept until the kernel has torn them down.
const PROBE_ATTEMPTS: u32 = 40;
const PROBE_PAUSE: Duration = Duration::from_millis(50);

/// What `recover` is asked for.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Cluster that the lost file belonged to.
    #[arg(long, value_parser = parse::number_u128)]
    pub cluster: u128,
    /// Index of the replica whose file was lost, from 0.
    #[arg(long)]
    pub replica: u8,
    /// The addresses of all replicas, in the order of their indexes, as `start` gets them.
    #[arg(long, value_name = "ADDRESSES", value_parser = parse::addresses)]
    pub addresses: Addresses,
    /// How many of the addresses are those of replicas; needed if those of standbys follow [default: all].
    #[arg(long, value_name = "COUNT")]
    pub replica_count: Option<u8>,
    /// The sizes that the cluster was made with.
    #[command(flatten)]
    pub sizes: format::Sizes,
    /// The new data file.
    pub file: PathBuf,
}

impl Options {
    /// What the file is made with.
    fn format(&self) -> anyhow::Result<format::Options> {
        let named = self.addresses.0.len();
        let usage = |sentence: String| Err(failure(Status::Usage, sentence));
        let count = self.replica_count.map_or(named, usize::from);
        if count > named {
            return usage(format!(
                "--replica-count={count}: --addresses names {named}, and has to name all replicas"
            ));
        }
        let Some(replica_count) = u8::try_from(count)
            .ok()
            .filter(|count| (1..=REPLICA_COUNT_MAX).contains(count))
        else {
            return usage(format!(
                "--addresses names {named} members, and a cluster has 1 to {REPLICA_COUNT_MAX} replicas: \
                 say with --replica-count how many of them are replicas"
            ));
        };
        if count == 1 {
            return usage(
                "this is a cluster of one replica: nobody else has what its file had; restore the file \
                 from a backup"
                    .into(),
            );
        }
        if count == 2 {
            return usage(
                "this is a cluster of two replicas: one alone cannot prove what the other has promised, \
                 nor go on without it. The file that is left has all that was acknowledged: keep it. \
                 Do not start an older copy of the lost one, which has forgotten what came after"
                    .into(),
            );
        }
        if self.replica >= replica_count {
            return usage(format!(
                "--replica={}: replicas count from 0, and there are {count}. A standby has nothing to \
                 recover: make its file again with `daftari format --standby={0}`",
                self.replica
            ));
        }
        Ok(format::Options {
            cluster: self.cluster,
            owner: Owner::replica(self.replica),
            replica_count,
            sizes: self.sizes.clone(),
            file: self.file.clone(),
        })
    }
}

/// Makes the file.
///
/// # Errors
/// When the options do not fit together, the replica still runs, or the file cannot be made.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let format = options.format()?;
    start::check_ports(&options.addresses)?;
    let geometry = format.geometry()?;
    if options.file.exists() {
        return Err(failure(
            Status::FileUnusable,
            format!(
                "{} exists already: start it, if it is the data file of this replica; only if it is \
                 beyond repair, move it away first",
                options.file.display()
            ),
        ));
    }
    let address = options.addresses.0[usize::from(options.replica)];
    if answers(address) {
        return Err(failure(
            Status::FileUnusable,
            format!(
                "somebody listens on {address}, the address of replica {}: its file is not lost while \
                 it runs. Check --replica; if it is the right one, stop that process first",
                options.replica
            ),
        ));
    }
    format::make(&format, &geometry, true)
}

/// Whether somebody listens on an address.
fn answers(address: SocketAddr) -> bool {
    (0..PROBE_ATTEMPTS).all(|attempt| {
        if attempt > 0 {
            std::thread::sleep(PROBE_PAUSE);
        }
        TcpStream::connect_timeout(&address, PROBE).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::{Options, Owner};
    use crate::cli::format::Sizes;
    use crate::cli::parse::addresses;

    fn options(replica: u8, count: usize) -> Options {
        let ports: Vec<String> = (0..count).map(|index| (3000 + index).to_string()).collect();
        Options {
            cluster: 7,
            replica,
            addresses: addresses(&ports.join(",")).unwrap(),
            replica_count: None,
            sizes: Sizes::default(),
            file: "file".into(),
        }
    }

    #[test]
    fn a_cluster_needs_enough_others() {
        let check = |replica, count, words: &str| {
            let error = options(replica, count).format().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(0, 1, "from a backup");
        check(0, 2, "one alone cannot prove");
        check(3, 3, "--replica=3");
        check(0, 7, "7 members");
    }

    #[test]
    fn standbys_do_not_count() {
        let members = |replica, count, replicas| {
            let options = Options {
                replica_count: Some(replicas),
                ..options(replica, count)
            };
            options.format()
        };
        assert_eq!(members(2, 5, 3).unwrap().replica_count, 3);
        assert_eq!(members(5, 12, 6).unwrap().replica_count, 6);
        let check = |replica, count, replicas, words: &str| {
            let error = members(replica, count, replicas).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(3, 5, 3, "--standby=3");
        check(1, 3, 2, "one alone cannot prove");
        check(1, 3, 0, "1 to 6 replicas");
        check(1, 3, 4, "--replica-count=4");
    }

    #[test]
    fn the_sizes_are_those_of_format() {
        for count in 3..=6 {
            let format = options(2, count).format().unwrap();
            assert_eq!(usize::from(format.replica_count), count);
            assert_eq!((format.cluster, format.owner), (7, Owner::replica(2)));
            assert!(format.geometry().is_ok());
        }
    }
}
