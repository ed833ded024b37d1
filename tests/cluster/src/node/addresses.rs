//! Where a node lives in the network.

use std::net::Ipv4Addr;

/// Addresses of node `number`, each in a block of 4,096 of 198.18.0.0/15, which is set aside for tests of networks
/// (RFC 2544, RFC 6890): nothing that the machine talks to lives there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    number: u8,
}

impl Addresses {
    /// How many nodes fit, and as many numbers the supervisor gives away.
    const NODES: u8 = 32;

    pub(crate) fn new(number: u8) -> Self {
        assert!(number < Self::NODES, "{number} is no number of a node");
        Self { number }
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + u32::from(self.number) * 4096 + offset)
    }

    /// The machine, as the node and its pods see it.
    pub(crate) fn machine(self) -> Ipv4Addr {
        self.at(1)
    }

    /// The node, with the API server and the cluster's DNS.
    pub(crate) fn node(self) -> Ipv4Addr {
        self.at(2)
    }

    /// The range of pods.
    pub(crate) fn pods(self) -> String {
        format!("{}/22", self.at(1024))
    }

    /// The range of Services.
    pub(crate) fn services(self) -> String {
        format!("{}/22", self.at(2048))
    }

    /// The Service `kubernetes` of the API server: the first of the range.
    pub(crate) fn first_service(self) -> Ipv4Addr {
        self.at(2049)
    }

    /// As the node's script reads them.
    pub(crate) fn shell(self) -> String {
        format!(
            "MACHINE={}\nNODE={}\nPODS={}\nSERVICES={}\n",
            self.machine(),
            self.node(),
            self.pods(),
            self.services()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Addresses;

    #[test]
    fn every_node_stays_in_the_range_for_tests() {
        let (first, last) = (Addresses::new(0), Addresses::new(31));
        assert_eq!(first.machine().to_string(), "198.18.0.1");
        assert_eq!(first.services(), "198.18.8.0/22");
        assert_eq!(last.services(), "198.19.248.0/22");
    }
}
