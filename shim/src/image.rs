//! Which image a container's root file system came from: the digest of the manifest for this platform, as containerd knows it.
//!
//! Believed only if three things agree: the image's configuration, the snapshot the container was given, and the mounts of the request.
//! The snapshot's parent must be the chain id of the image's layers; otherwise the name says one image and the files are another's.
//! It runs on docklock's own thread while the container runs, so it costs the container no time; whatever fails here leaves the image out
//! of the receipt, never the container.

use std::path::Path;
use std::time::Duration;

use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::run::Image;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{MountsRequest, StatSnapshotRequest};
use containerd_client::services::v1::{GetContainerRequest, GetImageRequest, ReadContentRequest};
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Request, Status};
use containerd_shim_protos::api::Mount;
use serde::Deserialize;

/// Longest manifest, index or configuration in bytes: the OCI distribution specification asks for 4 MiB.
const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long containerd may take for all of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How deep an index may lie in an index.
const INDEX_DEPTH_MAX: usize = 3;

/// Why no image is known.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The runtime or the connection.
    #[error("could not ask containerd at {address}: {reason}")]
    Connect {
        /// Its gRPC socket.
        address: String,
        /// Why not.
        reason: String,
    },
    /// A call that failed.
    #[error("containerd did not answer what {asked} is: {reason}")]
    Call {
        /// What was asked for.
        asked: String,
        /// Its status.
        reason: String,
    },
    /// No answer in time.
    #[error("containerd did not answer within {} seconds", PATIENCE.as_secs())]
    Timeout,
    /// A document that is too long.
    #[error("{digest} is longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong {
        /// Digest of the document.
        digest: String,
    },
    /// Content that is not what its digest says.
    #[error("the content of {digest} has another digest")]
    Digest {
        /// The digest it should have.
        digest: String,
    },
    /// A document that cannot be read.
    #[error("{digest} is no usable {kind}: {reason}")]
    Malformed {
        /// Digest of the document.
        digest: String,
        /// What it should be.
        kind: &'static str,
        /// Why it is not.
        reason: String,
    },
    /// An index without this platform.
    #[error("the index {digest} has no manifest for linux/amd64")]
    NoPlatform {
        /// Digest of the index.
        digest: String,
    },
    /// Files of another image.
    #[error("the snapshot {key} stands on {parent:?}, but the layers of image {image} make {chain}")]
    OtherLayers {
        /// The snapshot.
        key: String,
        /// Its parent.
        parent: String,
        /// The image's name.
        image: String,
        /// Chain id of its layers.
        chain: String,
    },
    /// Mounts that are not the snapshot's.
    #[error("the container was created with other mounts than those of its snapshot {key}")]
    OtherMounts {
        /// The snapshot.
        key: String,
    },
}

/// The container whose image is asked for.
#[derive(Clone, Debug)]
pub struct Question {
    /// containerd's gRPC socket.
    pub address: String,
    /// Its namespace.
    pub namespace: String,
    /// The container.
    pub container: String,
    /// The mounts its root file system was made of.
    pub rootfs: Vec<Mount>,
}

impl Question {
    /// Asks containerd, on a runtime of its own that ends with the answer. `None`: the container has no image or no snapshot.
    ///
    /// # Errors
    /// Each [`ImageError`] says which of the three did not agree, or what could not be asked.
    pub fn ask(&self) -> Result<Option<Image>, ImageError> {
        let unreachable = |reason: String| ImageError::Connect { address: self.address.clone(), reason };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unreachable(error.to_string()))?;
        runtime.block_on(async {
            let answer = async {
                let path = self.address.strip_prefix("unix://").unwrap_or(&self.address);
                let channel =
                    containerd_client::connect(Path::new(path)).await.map_err(|error| unreachable(sentence(&error)))?;
                let namespace =
                    self.namespace.parse().map_err(|_| unreachable(format!("{:?} is no namespace", self.namespace)))?;
                self.resolve(&Asker { channel, namespace }).await
            };
            tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(ImageError::Timeout))
        })
    }

    async fn resolve(&self, asker: &Asker) -> Result<Option<Image>, ImageError> {
        let request = asker.request(GetContainerRequest { id: self.container.clone() });
        let answer = ContainersClient::new(asker.channel.clone())
            .get(request)
            .await
            .map_err(failed("the container", &self.container))?;
        let Some(container) = answer.into_inner().container else { return Ok(None) };
        if container.image.is_empty() || container.snapshot_key.is_empty() {
            return Ok(None);
        }
        let (snapshotter, key) = (container.snapshotter, container.snapshot_key);

        let mut snapshots = SnapshotsClient::new(asker.channel.clone());
        let stat = asker.request(StatSnapshotRequest { snapshotter: snapshotter.clone(), key: key.clone() });
        let parent = snapshots
            .stat(stat)
            .await
            .map_err(failed("the snapshot", &key))?
            .into_inner()
            .info
            .unwrap_or_default()
            .parent;
        let mounts = asker.request(MountsRequest { snapshotter, key: key.clone() });
        let mounts =
            snapshots.mounts(mounts).await.map_err(failed("the mounts of snapshot", &key))?.into_inner().mounts;
        if !same_mounts(&self.rootfs, &mounts) {
            return Err(ImageError::OtherMounts { key });
        }

        let request = asker.request(GetImageRequest { name: container.image.clone() });
        let answer = ImagesClient::new(asker.channel.clone())
            .get(request)
            .await
            .map_err(failed("the image", &container.image))?;
        let Some(target) = answer.into_inner().image.and_then(|image| image.target) else { return Ok(None) };
        let top = Descriptor { media_type: target.media_type, digest: target.digest, platform: None };
        let (manifest, image) = asker.manifest(top).await?;
        let config: Config = asker.document(&manifest.config.digest, "image configuration").await?.1;
        let chain = chain_id(&config.rootfs.diff_ids).unwrap_or_default();
        if chain == parent {
            Ok(Some(image))
        } else {
            Err(ImageError::OtherLayers { key, parent, image: container.image, chain })
        }
    }
}

struct Asker {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
}

impl Asker {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    /// Follows indexes down to this platform's manifest.
    async fn manifest(&self, mut at: Descriptor) -> Result<(Manifest, Image), ImageError> {
        for _ in 0..INDEX_DEPTH_MAX {
            let (digest, document): (_, ManifestOrIndex) = self.document(&at.digest, "manifest").await?;
            if let Some(manifests) = document.manifests {
                at = pick(manifests).ok_or(ImageError::NoPlatform { digest: at.digest })?;
                continue;
            }
            let reason = "it has neither a config nor manifests".to_owned();
            let config =
                document.config.ok_or(ImageError::Malformed { digest: at.digest, kind: "manifest", reason })?;
            return Ok((Manifest { config }, Image { media_type: at.media_type, digest }));
        }
        let reason = format!("it lies more than {INDEX_DEPTH_MAX} indexes deep");
        Err(ImageError::Malformed { digest: at.digest, kind: "manifest", reason })
    }

    /// Reads a document by its digest, and believes the digest only after hashing.
    async fn document<T: for<'de> Deserialize<'de>>(
        &self,
        digest: &str,
        kind: &'static str,
    ) -> Result<(Sha256Digest, T), ImageError> {
        let malformed = |reason: String| ImageError::Malformed { digest: digest.to_owned(), kind, reason };
        let expected = digest
            .strip_prefix("sha256:")
            .and_then(Sha256Digest::from_hex)
            .ok_or_else(|| malformed("its digest is not sha256".to_owned()))?;
        let request = self.request(ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 });
        let mut stream = ContentClient::new(self.channel.clone())
            .read(request)
            .await
            .map_err(failed("the content", digest))?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.map_err(failed("the content", digest))? {
            bytes.extend(part.data);
            if bytes.len() > DOCUMENT_BYTES_MAX {
                return Err(ImageError::TooLong { digest: digest.to_owned() });
            }
        }
        if Sha256Digest::of(&bytes) != expected {
            return Err(ImageError::Digest { digest: digest.to_owned() });
        }
        let document = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        Ok((expected, document))
    }
}

fn failed<'a>(what: &'a str, name: &'a str) -> impl Fn(Status) -> ImageError + 'a {
    move |status| ImageError::Call { asked: format!("{what} {name}"), reason: status.message().to_owned() }
}

/// An error with the causes that its own text leaves out.
fn sentence(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Debug, Deserialize)]
struct ManifestOrIndex {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
}

#[derive(Debug)]
struct Manifest {
    config: Descriptor,
}

#[derive(Debug, Deserialize)]
struct Config {
    rootfs: Layers,
}

#[derive(Debug, Deserialize)]
struct Layers {
    diff_ids: Vec<String>,
}

/// The first manifest for this platform; one without a platform counts if there is no other to choose from.
fn pick(manifests: Vec<Descriptor>) -> Option<Descriptor> {
    let alone = manifests.len() == 1;
    manifests.into_iter().find(|manifest| match &manifest.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == "amd64",
        None => alone,
    })
}

/// The chain id of layers, by the OCI image specification, config.md "Layer ChainID". No layers have none.
fn chain_id(diff_ids: &[String]) -> Option<String> {
    diff_ids
        .iter()
        .cloned()
        .reduce(|chain, diff| format!("sha256:{}", Sha256Digest::of(format!("{chain} {diff}").as_bytes())))
}

/// True when the request was made of the snapshot's mounts. The order of options means nothing.
fn same_mounts(given: &[Mount], snapshot: &[containerd_client::types::Mount]) -> bool {
    fn sorted(options: &[String]) -> Vec<&String> {
        let mut options: Vec<_> = options.iter().collect();
        options.sort_unstable();
        options
    }
    given.len() == snapshot.len()
        && given
            .iter()
            .zip(snapshot)
            .all(|(a, b)| a.type_ == b.r#type && a.source == b.source && sorted(&a.options) == sorted(&b.options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(digest: &str, platform: Option<(&str, &str)>) -> Descriptor {
        let platform = platform.map(|(os, architecture)| Platform { os: os.into(), architecture: architecture.into() });
        Descriptor { media_type: "application/vnd.oci.image.manifest.v1+json".into(), digest: digest.into(), platform }
    }

    #[test]
    fn an_index_gives_the_manifest_of_this_platform() {
        let index = vec![
            descriptor("arm", Some(("linux", "arm64"))),
            descriptor("attestation", Some(("unknown", "unknown"))),
            descriptor("ours", Some(("linux", "amd64"))),
        ];
        assert_eq!(pick(index).map(|d| d.digest), Some("ours".into()));
        assert_eq!(pick(vec![descriptor("arm", Some(("linux", "arm64")))]), None);
    }

    #[test]
    fn a_manifest_without_a_platform_counts_only_alone() {
        assert_eq!(pick(vec![descriptor("only", None)]).map(|d| d.digest), Some("only".into()));
        assert_eq!(pick(vec![descriptor("a", None), descriptor("b", None)]), None);
    }

    #[test]
    fn the_chain_id_of_one_layer_is_its_diff_id_and_of_more_a_fold() {
        let a = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_owned();
        let b = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb".to_owned();
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(std::slice::from_ref(&a)), Some(a.clone()));
        let folded = format!("sha256:{}", Sha256Digest::of(format!("{a} {b}").as_bytes()));
        assert_eq!(chain_id(&[a, b]), Some(folded));
    }

    #[test]
    fn mounts_agree_whatever_the_order_of_their_options() {
        let given = |options: &[&str]| Mount {
            type_: "overlay".into(),
            source: "overlay".into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            ..Mount::default()
        };
        let snapshot = containerd_client::types::Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            options: vec!["lowerdir=/1".into(), "upperdir=/2".into()],
            ..Default::default()
        };
        assert!(same_mounts(&[given(&["upperdir=/2", "lowerdir=/1"])], std::slice::from_ref(&snapshot)));
        assert!(!same_mounts(&[given(&["upperdir=/2", "lowerdir=/3"])], std::slice::from_ref(&snapshot)));
        assert!(!same_mounts(&[], std::slice::from_ref(&snapshot)));
    }

    #[test]
    fn without_containerd_the_reason_names_its_socket() {
        let question = Question {
            address: "/nonexistent/containerd.sock".into(),
            namespace: "default".into(),
            container: "c".into(),
            rootfs: Vec::new(),
        };
        let reason = question.ask().map(|_| ()).map_err(|error| error.to_string());
        assert!(reason.as_ref().is_err_and(|text| text.contains("/nonexistent/containerd.sock")), "{reason:?}");
    }
}
