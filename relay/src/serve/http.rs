//! What a relay does over HTTP: it proxies UDP for its clients (RFC 9298), and shows how it is.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bpi_identity::Leaf;
use bpi_masque::{Event, Host, Page, Refusal, Target};
use tokio::net::lookup_host;

use super::hop::Hops;
use super::status::{OPEN_METRICS, page};

/// One HTTP connection: who may use it, and for what.
pub(super) struct Http {
    pub hops: Arc<Hops>,
    /// Who is at the other end. `None`: somebody who may read pages.
    pub peer: Option<Leaf>,
}

#[async_trait]
impl Host for Http {
    async fn authorize(&self, target: &Target) -> Result<SocketAddr, Refusal> {
        let Some(peer) = &self.peer else {
            self.hops.metrics.proxy_refused.inc();
            return Err(Refusal::Unauthenticated);
        };
        let judged = self.judge(peer, target).await;
        if let Err(refusal) = &judged {
            self.hops.metrics.proxy_refused.inc();
            tracing::info!(peer = %peer.id, host = target.host(), port = target.port(), %refusal, "a target was refused");
        }
        judged
    }

    fn page(&self, path: &str) -> Option<Page> {
        match path {
            "/status" => Some(Page { content_type: "application/json", body: page(&self.hops).into() }),
            // Figures are for who runs the relay or is of the mesh.
            "/metrics" if self.peer.is_some() => {
                self.hops.metrics.look(&mut self.hops.switch());
                Some(Page { content_type: OPEN_METRICS, body: self.hops.metrics.text().ok()?.into() })
            }
            _ => None,
        }
    }

    fn count(&self, event: Event) {
        if matches!(event, Event::Sent(_) | Event::Received(_)) {
            self.hops.metrics.proxied.inc();
        }
    }
}

impl Http {
    /// Where a target is, if the peer may go there: judged by the address, after its name was looked up.
    async fn judge(&self, peer: &Leaf, target: &Target) -> Result<SocketAddr, Refusal> {
        let found = match target.ip() {
            Some(ip) => vec![SocketAddr::new(ip, target.port())],
            None => {
                let found = lookup_host((target.host(), target.port())).await.map_err(|_| Refusal::Unresolved)?;
                found.collect()
            }
        };
        if found.is_empty() {
            return Err(Refusal::Unresolved);
        }
        let targets = &self.hops.config.masque;
        let role = peer.id.role();
        found.into_iter().find(|address| targets.allow(role, *address)).ok_or(Refusal::Prohibited)
    }
}
