//! The replica's own port for each port of each Service that it may stand in for.

use super::plan::{Candidate, ServiceName};
use super::slice::{WantedPort, hash};
use crate::app::{Port, Ports};
use crate::targets::TargetName;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::time::Instant;

/// How long a port stays open for a Service that may not be stood in for any more: until every node has forgotten the
/// port, which takes seconds at most.
const LINGER: Duration = Duration::from_mins(1);

/// Open ports, each for one port of one Service. They close when this is dropped.
#[derive(Debug)]
pub(crate) struct Doors {
    open: Ports,
    listen: IpAddr,
    range: RangeInclusive<u16>,
    opened: HashMap<(ServiceName, String), Door>,
    /// The numbers that a former life of this replica used.
    preferred: HashMap<(ServiceName, String), u16>,
    has_failed: bool,
}

#[derive(Debug)]
struct Door {
    port: Port,
    target: TargetName,
    /// Since when its Service is none that may be stood in for.
    unused: Option<Instant>,
}

impl Doors {
    /// None is open.
    pub(crate) fn new(open: Ports, listen: IpAddr, range: RangeInclusive<u16>) -> Self {
        Self {
            open,
            listen,
            range,
            opened: HashMap::new(),
            preferred: HashMap::new(),
            has_failed: false,
        }
    }

    /// Tries this number first for a port of a Service.
    pub(crate) fn prefer(&mut self, service: &ServiceName, port: &str, number: u16) {
        self.preferred.insert((service.clone(), port.to_owned()), number);
    }

    /// The ports for a Service, opened if they are not; `None` when one cannot be.
    pub(crate) async fn open(
        &mut self,
        service: &ServiceName,
        candidate: &Candidate,
    ) -> Option<Vec<WantedPort>> {
        for port in &candidate.ports {
            let key = (service.clone(), port.name.clone());
            if let Some(door) = self.opened.get_mut(&key)
                && door.target == candidate.target
            {
                door.unused = None;
                continue;
            }
            match self.door(&key, &candidate.target).await {
                Ok(door) => {
                    self.has_failed = false;
                    self.opened.insert(key, door);
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.has_failed, true) {
                        let (service, range) = (&service.name, &self.range);
                        tracing::error!(service, ?range, %error, "no port is free to stand in for the Service on; give more with --takeover-ports");
                    }
                    return None;
                }
            }
        }
        self.of(service, candidate)
    }

    /// The ports for a Service; `None` when not all of them are open.
    pub(crate) fn of(&self, service: &ServiceName, candidate: &Candidate) -> Option<Vec<WantedPort>> {
        candidate
            .ports
            .iter()
            .map(|port| {
                let door = self.opened.get(&(service.clone(), port.name.clone()))?;
                Some(WantedPort {
                    name: port.name.clone(),
                    number: door.port.addr().port(),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect()
    }

    /// Closes the ports of Services that have not been among `live` for a while.
    pub(crate) fn close_others(&mut self, live: &HashSet<ServiceName>) {
        self.opened.retain(|(service, _), door| {
            if live.contains(service) {
                return true;
            }
            door.unused.get_or_insert_with(Instant::now).elapsed() < LINGER
        });
    }

    /// A port that nothing else has: the one that it had before, else the first free one from a place in the range
    /// that the Service's name decides. So the number is mostly the same after a restart, and mostly not one that was
    /// another Service's a moment ago.
    async fn door(&mut self, key: &(ServiceName, String), target: &TargetName) -> io::Result<Door> {
        let (ServiceName { namespace, name }, port) = key;
        let count = u64::from(self.range.end() - self.range.start()) + 1;
        let first = hash(&format!("{namespace}/{name}/{port}")) % count;
        let reserved: HashSet<u16> = self.preferred.values().copied().collect();
        let own = self.preferred.remove(key);
        let others = (0..count)
            .filter_map(|step| u16::try_from((first + step) % count).ok())
            .map(|offset| self.range.start() + offset)
            .filter(|number| !reserved.contains(number));
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for number in own.into_iter().chain(others) {
            match self
                .open
                .open(SocketAddr::new(self.listen, number), target.clone())
                .await
            {
                Ok(port) => {
                    return Ok(Door {
                        port,
                        target: target.clone(),
                        unused: None,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}
