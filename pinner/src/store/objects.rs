//! Shards as objects of a bucket: S3, Azure or Google, by `store.url`.
//!
//! ```text
//! <prefix>/<first byte in hex>/<da_root in hex>.<shard>
//! ```
//!
//! A shard is put whole, on condition that nothing has its name: a bucket that answers has it durably. If something has the name, it is the same shard from
//! before a crash, or a bad one, which is replaced on condition that it has not changed meanwhile. Always true: nothing here is believed; whoever reads
//! checks, as from a disk. Absent on purpose: multipart uploads (a shard has 68 MiB at most), and any listing that a decision hangs on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path as Location;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion, parse_url_opts,
};
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::{ShardKey, Shards, StoreError, name_of, parse_name};
use crate::disk::{Disk, Span};

/// Why a bucket cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// No URL, or one of something else.
    #[error(
        "store.url = {url:?} is refused: {reason}; it has to be s3://bucket/prefix, az://container/prefix or gs://bucket/prefix"
    )]
    Url {
        /// What stands there.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file of options.
    #[error("store.options_file = {} cannot be used: {reason}", path.display())]
    Options {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Threads.
    #[error("could not start what asks the bucket: {source}")]
    Runtime {
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// A bucket.
pub struct Objects {
    disk: Arc<dyn Disk>,
    store: Box<dyn ObjectStore>,
    prefix: Location,
    place: String,
    timeout: Duration,
    /// There until the end, when it is given up without waiting.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Objects {
    /// Names a bucket; nothing is asked of it yet. `options` are those of its provider's client, which may hold keys.
    ///
    /// # Errors
    /// [`BucketError`].
    pub fn new(
        disk: Arc<dyn Disk>,
        url: &str,
        options: &BTreeMap<String, String>,
        timeout: Duration,
    ) -> Result<Self, BucketError> {
        let refused = |reason: String| BucketError::Url { url: url.to_owned(), reason };
        let parsed = Url::parse(url).map_err(|error| refused(error.to_string()))?;
        if !["s3", "s3a", "az", "azure", "abfs", "abfss", "adl", "gs", "https", "http"].contains(&parsed.scheme()) {
            return Err(refused(format!("a pinner has no {} for shards", parsed.scheme())));
        }
        // Another one may be there already, and is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let asked = [("timeout".to_owned(), format!("{}s", timeout.as_secs()))];
        let options = asked.into_iter().chain(options.clone());
        let (store, prefix) = parse_url_opts(&parsed, options).map_err(|error| refused(error.to_string()))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = Some(runtime.map_err(|source| BucketError::Runtime { source })?);
        let mut place = parsed;
        place.set_query(None);
        Ok(Self { disk, store, prefix, place: place.to_string(), timeout, runtime })
    }

    fn location(&self, key: &ShardKey) -> Location {
        self.prefix.clone().join(hex::encode([key.da_root[0]])).join(name_of(key))
    }

    fn failed(&self, deed: &'static str, object: impl ToString) -> impl Fn(String) -> StoreError {
        let (object, place) = (object.to_string(), self.place.clone());
        move |reason| StoreError::Object { deed, object: object.clone(), place: place.clone(), reason }
    }

    /// Waits for an answer, no longer than may be.
    fn ask<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<Result<T, Error>, String> {
        let Some(runtime) = &self.runtime else { return Err("the pinner is ending".to_owned()) };
        // The client tries again for a while; this is for all of its tries.
        let patience = self.timeout.saturating_mul(3);
        let late = |_| format!("nothing was answered within {} s", patience.as_secs());
        runtime.block_on(async { tokio::time::timeout(patience, answer).await }).map_err(late)
    }

    /// Puts an object in place of one that is not as it should be.
    fn replace(
        &self,
        location: &Location,
        bytes: &PutPayload,
        say: &impl Fn(String) -> StoreError,
    ) -> Result<(), StoreError> {
        let there = self.ask(self.store.head(location)).map_err(say)?.map_err(|error| say(error.to_string()))?;
        let version = UpdateVersion { e_tag: there.e_tag, version: there.version };
        let options = PutOptions { mode: PutMode::Update(version), ..PutOptions::default() };
        match self.ask(self.store.put_opts(location, bytes.clone(), options)).map_err(say)? {
            Ok(_) => Ok(()),
            // Not every bucket knows the condition; there is one writer.
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                let put = self.store.put_opts(location, bytes.clone(), PutOptions::default());
                self.ask(put).map_err(say)?.map(drop).map_err(|error| say(error.to_string()))
            }
            Err(error) => Err(say(error.to_string())),
        }
    }

    fn whole(&self, location: &Location) -> Result<Result<Vec<u8>, Error>, String> {
        self.ask(async { Ok(self.store.get(location).await?.bytes().await?.to_vec()) })
    }
}

impl Shards for Objects {
    fn put(&self, key: &ShardKey, staged: &Path) -> Result<(), StoreError> {
        let bytes = self.disk.read_whole(staged)?;
        let location = self.location(key);
        let say = self.failed("put", &location);
        let payload = PutPayload::from(bytes);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.ask(self.store.put_opts(&location, payload.clone(), options)).map_err(&say)? {
            Ok(_) => {}
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                let there = self.whole(&location).map_err(&say)?;
                let same = there.is_ok_and(|there| payload.iter().flat_map(|part| part.iter()).eq(&there));
                if !same {
                    self.replace(&location, &payload, &say)?;
                }
            }
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                let put = self.store.put_opts(&location, payload, PutOptions::default());
                self.ask(put).map_err(&say)?.map_err(|error| say(error.to_string()))?;
            }
            Err(error) => return Err(say(error.to_string())),
        }
        Ok(self.disk.remove(staged)?)
    }

    fn settle(&self) -> Result<(), StoreError> {
        // A bucket that has answered has it.
        Ok(())
    }

    fn read(&self, key: &ShardKey, spans: &[Span]) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        let location = self.location(key);
        let say = self.failed("read", &location);
        let ranges: Vec<_> = spans.iter().map(|span| span.offset..span.offset + span.length as u64).collect();
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        match self.ask(self.store.get_ranges(&location, &ranges)).map_err(&say)? {
            Ok(parts) => {
                let whole =
                    parts.len() == spans.len() && parts.iter().zip(spans).all(|(part, span)| part.len() == span.length);
                Ok(whole.then(|| parts.into_iter().map(|part| part.to_vec()).collect()))
            }
            Err(Error::NotFound { .. }) => Ok(None),
            // A range beyond its end, which buckets say in many words.
            Err(error) => match self.ask(self.store.head(&location)).map_err(&say)? {
                Err(Error::NotFound { .. }) => Ok(None),
                Ok(there) if there.size < end => Ok(None),
                _ => Err(say(error.to_string())),
            },
        }
    }

    fn remove(&self, key: &ShardKey) -> Result<(), StoreError> {
        let location = self.location(key);
        let say = self.failed("remove", &location);
        match self.ask(self.store.delete(&location)).map_err(&say)? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(say(error.to_string())),
        }
    }

    fn list(&self, first: u8) -> Result<Vec<ShardKey>, StoreError> {
        let folder = self.prefix.clone().join(hex::encode([first]));
        let say = self.failed("list", &folder);
        let listed = self.ask(self.store.list_with_delimiter(Some(&folder))).map_err(&say)?;
        let listed = listed.map_err(|error| say(error.to_string()))?;
        let names = listed.objects.iter().filter_map(|object| object.location.filename());
        Ok(names.filter_map(parse_name).filter(|key| key.da_root[0] == first).collect())
    }

    fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }
}
