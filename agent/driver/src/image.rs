//! An image by its digest: its documents, and its layers as snapshots, as `ctr image unpack` makes them (OCI image specification; chain ids of config.md).
//!
//! Always true: a document is believed after hashing; a layer counts as unpacked when its uncompressed digest is the one of the configuration.
//! Absent on purpose: pulling, and platforms other than linux/amd64.

use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::services::v1::{
    ApplyRequest, CreateImageRequest, Image, Info, InfoRequest, ListImagesRequest, ReadContentRequest, UpdateRequest,
};
use containerd_client::types::Descriptor as Content;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::Driver;
use crate::calls::{PATIENCE, Scope, UNPACK, answer, refused};
use crate::error::DriverError;
use crate::order::is_digest;

/// Bytes of a manifest, index or configuration, at most: the OCI distribution specification asks for 4 MiB.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// How deep an index may lie in an index.
const INDEX_DEPTH_MAX: usize = 3;
/// Layers, at most: overlayfs takes 500, and images have at most 127.
const LAYERS_MAX: usize = 256;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: i64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Debug, Default, Deserialize)]
struct Layers {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// What an image says of how it is run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Says {
    #[serde(default)]
    pub(crate) user: String,
    #[serde(default)]
    pub(crate) env: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) cmd: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) working_dir: String,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    #[serde(default)]
    config: Option<Says>,
    #[serde(default)]
    rootfs: Layers,
}

/// An image that is unpacked.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// The snapshot of its last layer.
    pub(crate) chain_id: String,
    /// What it says.
    pub(crate) says: Says,
    /// Its name in the image store.
    pub(crate) name: String,
}

/// The first manifest for this platform; one without a platform counts when there is no other to choose from.
fn pick(manifests: Vec<Descriptor>) -> Option<Descriptor> {
    let alone = manifests.len() == 1;
    manifests.into_iter().find(|manifest| match &manifest.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == "amd64",
        None => alone,
    })
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn wrong(digest: &str, kind: &'static str, reason: &str) -> DriverError {
    DriverError::Document { digest: digest.to_owned(), kind, reason: reason.to_owned() }
}

/// What an image without a name is called for the time of a run.
pub(crate) fn run_name(run: &str) -> String {
    format!("bpi.local/{run}")
}

impl Driver {
    /// Finds an image and unpacks what of it is not unpacked. `layer` hears which of how many layers comes next.
    pub(crate) async fn unpack(
        &self,
        scope: &Scope,
        digest: &str,
        run: &str,
        mut layer: impl FnMut(usize, usize),
    ) -> Result<Unpacked, DriverError> {
        let (top, manifest) = self.manifest(scope, digest).await?;
        let config = manifest.config.ok_or_else(|| wrong(digest, "manifest", "it has no config"))?;
        let configuration: Configuration = self.document(scope, &config.digest, "image configuration").await?;
        let diff_ids = &configuration.rootfs.diff_ids;
        if diff_ids.is_empty() || diff_ids.len() > LAYERS_MAX || diff_ids.len() != manifest.layers.len() {
            let reason = format!(
                "it has {} layers and the manifest {}; 1 to 256 are possible",
                diff_ids.len(),
                manifest.layers.len()
            );
            return Err(wrong(&config.digest, "image configuration", &reason));
        }
        let mut chain_id = String::new();
        for (at, (descriptor, diff_id)) in manifest.layers.iter().zip(diff_ids).enumerate() {
            if !is_digest(diff_id) || !is_digest(&descriptor.digest) {
                return Err(wrong(&config.digest, "image configuration", "a layer has no SHA-256"));
            }
            let parent = chain_id;
            chain_id = match at {
                0 => diff_id.clone(),
                _ => digest_of(format!("{parent} {diff_id}").as_bytes()),
            };
            if !self.has_snapshot(scope, &chain_id).await? {
                layer(at + 1, diff_ids.len());
                self.unpack_layer(scope, descriptor, diff_id, (&parent, &chain_id), run).await?;
            }
        }
        self.hold(scope, &config.digest, &chain_id).await?;
        let name = self.name(scope, top, run).await?;
        Ok(Unpacked { chain_id, says: configuration.config.unwrap_or_default(), name })
    }

    async fn has_snapshot(&self, scope: &Scope, key: &str) -> Result<bool, DriverError> {
        let request = StatSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        let mut client = SnapshotsClient::new(self.channel.clone());
        match answer(("looking for snapshot", key), PATIENCE, client.stat(scope.request(request))).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn unpack_layer(
        &self,
        scope: &Scope,
        descriptor: &Descriptor,
        diff_id: &str,
        (parent, chain_id): (&str, &str),
        run: &str,
    ) -> Result<(), DriverError> {
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let key = format!("extract-{run} {chain_id}");
        let labels = [("containerd.io/snapshot.ref".to_owned(), chain_id.to_owned())];
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.clone(),
            parent: parent.to_owned(),
            labels: labels.into(),
        };
        let prepared =
            answer(("preparing snapshot", &key), PATIENCE, snapshots.prepare(scope.request(request))).await?;
        let request = ApplyRequest {
            diff: Some(Content {
                media_type: descriptor.media_type.clone(),
                digest: descriptor.digest.clone(),
                size: descriptor.size,
                annotations: Default::default(),
            }),
            mounts: prepared.mounts,
            ..ApplyRequest::default()
        };
        let mut diffs = DiffClient::new(self.channel.clone());
        let applied =
            answer(("unpacking layer", &descriptor.digest), UNPACK, diffs.apply(scope.request(request))).await;
        let unpacked = match applied {
            Ok(applied) => match applied.applied.map(|content| content.digest) {
                Some(found) if found == diff_id => {
                    let request = CommitSnapshotRequest {
                        snapshotter: self.snapshotter.clone(),
                        name: chain_id.to_owned(),
                        key: key.clone(),
                        ..CommitSnapshotRequest::default()
                    };
                    let committed = snapshots.commit(scope.request(request));
                    match answer(("committing snapshot", chain_id), PATIENCE, committed).await {
                        Ok(()) => return Ok(()),
                        // Somebody unpacked the same image meanwhile.
                        Err(error) if error.is_already_there() => Ok(()),
                        Err(error) => Err(error),
                    }
                }
                found => Err(DriverError::Digest { digest: diff_id.to_owned(), found: found.unwrap_or_default() }),
            },
            Err(error) if error.is_not_found() => Err(DriverError::Missing { digest: descriptor.digest.clone() }),
            Err(error) => Err(error),
        };
        let request = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.clone() };
        let removed = answer(("removing snapshot", &key), PATIENCE, snapshots.remove(scope.request(request))).await;
        unpacked.and(removed)
    }

    /// Ties the snapshots to the configuration, so that they live as long as the image does.
    async fn hold(&self, scope: &Scope, config: &str, chain_id: &str) -> Result<(), DriverError> {
        let label = format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter);
        let mut client = ContentClient::new(self.channel.clone());
        let request = InfoRequest { digest: config.to_owned() };
        let known = answer(("looking at content", config), PATIENCE, client.info(scope.request(request))).await?.info;
        if known.is_some_and(|info| info.labels.get(&label).is_some_and(|held| held == chain_id)) {
            return Ok(());
        }
        let labels = [(label.clone(), chain_id.to_owned())].into();
        let request = UpdateRequest {
            info: Some(Info { digest: config.to_owned(), labels, ..Info::default() }),
            update_mask: Some(prost_types::FieldMask { paths: vec![format!("labels.{label}")] }),
        };
        answer(("labelling content", config), PATIENCE, client.update(scope.request(request))).await.map(|_| ())
    }

    /// A name of the image in the image store. The shim claims an image only by a name, so one that has none gets one for the time of the run.
    async fn name(&self, scope: &Scope, top: Descriptor, run: &str) -> Result<String, DriverError> {
        let mut client = ImagesClient::new(self.channel.clone());
        let request = ListImagesRequest { filters: vec![format!("target.digest=={}", top.digest)] };
        let listed = answer(("looking for image", &top.digest), PATIENCE, client.list(scope.request(request))).await?;
        let known =
            listed.images.into_iter().find(|image| image.target.as_ref().is_some_and(|at| at.digest == top.digest));
        if let Some(image) = known {
            return Ok(image.name);
        }
        let name = run_name(run);
        let target =
            Content { media_type: top.media_type, digest: top.digest, size: top.size, annotations: Default::default() };
        let image = Image { name: name.clone(), target: Some(target), ..Image::default() };
        let request = CreateImageRequest { image: Some(image), source_date_epoch: None };
        answer(("naming image", &name), PATIENCE, client.create(scope.request(request))).await?;
        Ok(name)
    }

    /// Follows indexes down to this platform's manifest. Answers what was asked for, and the manifest.
    async fn manifest(&self, scope: &Scope, digest: &str) -> Result<(Descriptor, Document), DriverError> {
        let mut at = digest.to_owned();
        let mut top: Option<Descriptor> = None;
        for _ in 0..=INDEX_DEPTH_MAX {
            let (bytes, document) = self.read::<Document>(scope, &at, "manifest").await?;
            let kind = match document.manifests {
                Some(_) => "application/vnd.oci.image.index.v1+json",
                None => "application/vnd.oci.image.manifest.v1+json",
            };
            let asked = top.get_or_insert_with(|| Descriptor {
                media_type: document.media_type.clone().unwrap_or_else(|| kind.to_owned()),
                digest: digest.to_owned(),
                size: bytes as i64,
                platform: None,
            });
            match document.manifests {
                Some(manifests) => {
                    at = pick(manifests).ok_or_else(|| wrong(&at, "index", "it has nothing for linux/amd64"))?.digest;
                }
                None => return Ok((asked.clone(), document)),
            }
        }
        Err(wrong(digest, "manifest", "it lies more than 3 indexes deep"))
    }

    async fn document<T: DeserializeOwned>(
        &self,
        scope: &Scope,
        digest: &str,
        kind: &'static str,
    ) -> Result<T, DriverError> {
        self.read(scope, digest, kind).await.map(|(_, document)| document)
    }

    /// Reads a document, and believes it after hashing.
    async fn read<T: DeserializeOwned>(
        &self,
        scope: &Scope,
        digest: &str,
        kind: &'static str,
    ) -> Result<(usize, T), DriverError> {
        if !is_digest(digest) {
            return Err(wrong(digest, kind, "it has no SHA-256"));
        }
        let missing = |error: DriverError| match error.is_not_found() {
            true => DriverError::Missing { digest: digest.to_owned() },
            false => error,
        };
        let mut client = ContentClient::new(self.channel.clone());
        let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let call = client.read(scope.request(request));
        let mut stream = answer(("reading", digest), PATIENCE, call).await.map_err(missing)?;
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.map_err(refused("reading", digest)).map_err(missing)? {
            bytes.extend(part.data);
            if bytes.len() > DOCUMENT_BYTES_MAX {
                return Err(wrong(digest, kind, "it is longer than 4 MiB"));
            }
        }
        let found = digest_of(&bytes);
        if found != digest {
            return Err(DriverError::Digest { digest: digest.to_owned(), found });
        }
        let document = serde_json::from_slice(&bytes).map_err(|error| wrong(digest, kind, &error.to_string()))?;
        Ok((bytes.len(), document))
    }
}
