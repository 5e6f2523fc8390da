//! What is left out of a seed, so that less of it is left to be looked at.

use super::injection::Family;
use super::numbers::Numbers;
use std::collections::BTreeSet;
use std::fmt;

/// See the module. Its text is what a command line says of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cuts {
    /// So many replicas, whatever the seed draws.
    pub replicas: Option<u8>,
    /// At most so many clients at work.
    pub clients: Option<usize>,
    /// At most so many requests.
    pub requests: Option<u64>,
    /// Families of faults that do not happen.
    pub without: BTreeSet<Family>,
    /// Faults that do not happen.
    pub skip: Numbers,
}

impl Cuts {
    /// Fewer clients and requests, as far as they are cut. Draws are the same.
    pub fn limit(&self, clients: &mut usize, requests: &mut u64) {
        *clients = self.clients.map_or(*clients, |it| it.min(*clients));
        *requests = self.requests.map_or(*requests, |it| it.min(*requests));
    }
}

impl fmt::Display for Cuts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(replicas) = self.replicas {
            write!(f, " --replicas {replicas}")?;
        }
        if let Some(clients) = self.clients {
            write!(f, " --clients {clients}")?;
        }
        if let Some(requests) = self.requests {
            write!(f, " --requests {requests}")?;
        }
        if !self.without.is_empty() {
            let names: Vec<&str> = self.without.iter().map(|family| family.name()).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        if !self.skip.is_empty() {
            write!(f, " --skip {}", self.skip)?;
        }
        Ok(())
    }
}
