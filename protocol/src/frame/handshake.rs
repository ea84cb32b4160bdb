//! How a session gets its keys.
//!
//! ```text
//! initiator                                            responder
//!   enc, context = HPKE.SetupBase(prekey, info)
//!   INIT  header enc commit { identity ephemeral instance signature }  ─►   phase 0 forward, for this frame alone
//!                                                      dh = X25519(fresh, ephemeral)
//!   ◄─  INIT reversed  header fresh commit { instance signature }                   phase 1 of both directions
//! ```
//!
//! HPKE is RFC 9180's base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, export-only. The initiator is known by its signature, the responder by
//! holding the prekey and by its own. What is sealed after the reply stays closed to who gets prekeys and identities later.

use hpke::aead::ExportOnlyAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, HpkeError, OpModeR, OpModeS, Serializable as _, setup_receiver};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};
use x25519_dalek::{PublicKey as ExchangeKey, StaticSecret};
use zeroize::Zeroizing;

use crate::consensus::bytes::{BytesError, Reader, Writer};
use crate::key::PublicKey;

use super::cipher::{Chain, MATERIAL_BYTES, Phase, Unopened, expand, extract};
use super::header::{COMMIT_BYTES, ENC_BYTES, HEADER_BYTES, Header, Kind, SessionId};
use super::key::{KeyId, Prekey, PrekeyPair, SIGNATURE_BYTES, Signer};

type Kem = X25519HkdfSha256;

/// Bytes of an INIT's plaintext.
pub const INTRODUCTION_BYTES: usize = 32 + 32 + 8 + SIGNATURE_BYTES;

const INFO_DOMAIN: &[u8] = b"bpci/1 init";
const FORWARD: &[u8] = b"bpci/1 forward";
const RESPONSE: &[u8] = b"bpci/1 response";
const INIT_DOMAIN: &[u8] = b"bpci/1 signature init";
const REPLY_DOMAIN: &[u8] = b"bpci/1 signature reply";

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The keys do not go together, or one is of small order (RFC 9180, section 7.1.4).
    #[error("the key exchange failed")]
    Exchange,
    /// The commitment is to another key.
    #[error("the frame commits to another key")]
    Commitment,
    /// It does not open.
    #[error(transparent)]
    Unopened(#[from] Unopened),
    /// It opens, and holds something else.
    #[error("the handshake holds something else: {0}")]
    Malformed(#[from] BytesError),
    /// Its signature does not hold.
    #[error("the handshake is not signed by whom it names")]
    Signature,
}

impl From<HpkeError> for HandshakeError {
    fn from(_: HpkeError) -> Self {
        Self::Exchange
    }
}

/// What an initiator keeps until the reply.
pub struct Opening {
    ephemeral: StaticSecret,
    response: Zeroizing<[u8; 32]>,
    prekey: Prekey,
    digest: [u8; 32],
}

/// What a responder has of an INIT that holds.
pub struct Accepted {
    /// Who opens the session.
    pub identity: [u8; 32],
    /// Which life of its process.
    pub instance: [u8; 8],
    /// Digest of the INIT, which names the session beyond doubt.
    pub digest: [u8; 32],
    /// The reply's frame.
    pub reply: Vec<u8>,
    /// Forward keys from phase 1 on.
    pub forward: Chain,
    /// Reverse keys from phase 1 on.
    pub reverse: Chain,
}

/// What an initiator has after the reply.
pub struct Opened {
    /// Which life of the responder's process.
    pub instance: [u8; 8],
    /// Forward keys from phase 1 on.
    pub forward: Chain,
    /// Reverse keys from phase 1 on.
    pub reverse: Chain,
}

fn info(prekey: &Prekey) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.bytes(INFO_DOMAIN).u64(prekey.network).bytes(&prekey.identity).u16(prekey.serial);
    writer.done()
}

/// What an INIT's signature is over: header, enc and commitment as they go over the wire, the recipient's key, and a digest of what is sealed.
fn signed(domain: &[u8], associated: &[u8], key: &[u8; 32], sealed: &[&[u8]]) -> Vec<u8> {
    let mut digest = Sha256::new();
    sealed.iter().for_each(|part| digest.update(part));
    [domain, associated, key, &digest.finalize()].concat()
}

fn digest_of(frame: &[u8]) -> [u8; 32] {
    Sha256::digest(frame).into()
}

/// What both sides compute from the second exchange: forward and reverse chains.
fn chains(response: &[u8; 32], dh: &[u8; 32], digest: &[u8; 32], fresh: &[u8; 32]) -> (Chain, Chain) {
    let secret = extract(response, dh);
    let chain = |name: &[u8]| Chain::new(expand(&secret, &[name, digest, fresh]));
    (chain(b"bpci/1 chain forward"), chain(b"bpci/1 chain reverse"))
}

/// Opens a session: the INIT frame, and what is kept until its reply.
///
/// # Errors
/// When the prekey is no key.
pub fn initiate(
    signer: &impl Signer,
    instance: [u8; 8],
    prekey: &Prekey,
    session: SessionId,
    expiry_s: u32,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<(Opening, Vec<u8>), HandshakeError> {
    let to = <Kem as hpke::Kem>::PublicKey::from_bytes(&prekey.key)?;
    let mut rng = rng;
    let (enc, context) =
        hpke::setup_sender_with_rng::<ExportOnlyAead, HkdfSha256, Kem>(&OpModeS::Base, &to, &info(prekey), &mut rng)?;
    let (phase, response) = exported(|name, out| context.export(name, out))?;
    let ephemeral = StaticSecret::random_from_rng(&mut rng);
    let header = Header {
        kind: Kind::Init,
        reverse: false,
        serial: prekey.serial,
        network: prekey.network,
        to: KeyId::of(&prekey.identity),
        session,
        phase: 0,
        seq: 0,
        expiry_s,
        fragment: 0,
        fragments: 1,
        payload_bytes: INTRODUCTION_BYTES as u32,
    };
    let mut frame = Vec::with_capacity(header.frame_bytes());
    frame.extend_from_slice(&header.to_bytes());
    frame.extend_from_slice(&enc.to_bytes());
    frame.extend_from_slice(&phase.commit());
    let identity = signer.identity();
    let public = ExchangeKey::from(&ephemeral).to_bytes();
    let parts: [&[u8]; 3] = [&identity, &public, &instance];
    let signature = signer.sign(&signed(INIT_DOMAIN, &frame, &prekey.key, &parts));
    for part in [&identity[..], &public, &instance, &signature] {
        frame.extend_from_slice(part);
    }
    phase.seal(0, &mut frame, header.associated_bytes());
    let opening = Opening { ephemeral, response, prekey: *prekey, digest: digest_of(&frame) };
    Ok((opening, frame))
}

/// Exports of an HPKE context: the first forward key, and the secret that the reply is mixed with.
fn exported(
    export: impl Fn(&[u8], &mut [u8]) -> Result<(), HpkeError>,
) -> Result<(Phase, Zeroizing<[u8; 32]>), HpkeError> {
    let mut material = Zeroizing::new([0; MATERIAL_BYTES]);
    export(FORWARD, material.as_mut())?;
    let mut response = Zeroizing::new([0; 32]);
    export(RESPONSE, response.as_mut())?;
    Ok((Phase::new(&material), response))
}

/// Takes an INIT that is sealed to `prekey`, and makes its reply.
///
/// # Errors
/// [`HandshakeError`]; the frame proves nothing then.
pub fn accept(
    signer: &impl Signer,
    instance: [u8; 8],
    prekey: &PrekeyPair,
    header: &Header,
    frame: &mut [u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Accepted, HandshakeError> {
    let digest = digest_of(frame);
    let mut associated = Reader::new(frame);
    associated.take(HEADER_BYTES)?;
    let enc = <Kem as hpke::Kem>::EncappedKey::from_bytes(associated.take(ENC_BYTES)?)?;
    let commit: [u8; COMMIT_BYTES] = associated.array()?;
    let secret = <Kem as hpke::Kem>::PrivateKey::from_bytes(prekey.secret_bytes().as_ref())?;
    let context =
        setup_receiver::<ExportOnlyAead, HkdfSha256, Kem>(&OpModeR::Base, &secret, &enc, &info(&prekey.public))?;
    let (phase, response) = exported(|name, out| context.export(name, out))?;
    if !phase.is_committed_by(&commit) {
        return Err(HandshakeError::Commitment);
    }
    let length = header.associated_bytes();
    let mut head = Vec::with_capacity(length);
    head.extend_from_slice(frame.get(..length).unwrap_or_default());
    let plain = phase.open(0, frame, length)?;
    let mut reader = Reader::new(plain);
    let identity: [u8; 32] = reader.array()?;
    let public: [u8; 32] = reader.array()?;
    let theirs: [u8; 8] = reader.array()?;
    let signature: [u8; SIGNATURE_BYTES] = reader.array()?;
    reader.end()?;
    let signed = signed(INIT_DOMAIN, &head, &prekey.public.key, &[&identity, &public, &theirs]);
    verify(&identity, &signed, &signature)?;

    let fresh = StaticSecret::random_from_rng(&mut { rng });
    let dh = fresh.diffie_hellman(&ExchangeKey::from(public));
    if !dh.was_contributory() {
        return Err(HandshakeError::Exchange);
    }
    let fresh = ExchangeKey::from(&fresh).to_bytes();
    let (forward, reverse) = chains(&response, dh.as_bytes(), &digest, &fresh);
    let answer = Header {
        reverse: true,
        serial: 0,
        to: KeyId::of(&identity),
        phase: 1,
        payload_bytes: (8 + SIGNATURE_BYTES) as u32,
        ..*header
    };
    let (key, _) = reverse.next();
    let mut reply = Vec::with_capacity(answer.frame_bytes());
    reply.extend_from_slice(&answer.to_bytes());
    reply.extend_from_slice(&fresh);
    reply.extend_from_slice(&key.commit());
    let signature = signer.sign(&self::signed(REPLY_DOMAIN, &reply, &digest, &[&instance]));
    reply.extend_from_slice(&instance);
    reply.extend_from_slice(&signature);
    key.seal(0, &mut reply, answer.associated_bytes());
    Ok(Accepted { identity, instance: theirs, digest, reply, forward, reverse })
}

impl Opening {
    /// Digest of the INIT, which names the session beyond doubt.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The prekey it is sealed to.
    pub fn prekey(&self) -> &Prekey {
        &self.prekey
    }

    /// Takes the reply.
    ///
    /// # Errors
    /// [`HandshakeError`]; the session is still to be opened then.
    pub fn complete(&self, header: &Header, frame: &mut [u8]) -> Result<Opened, HandshakeError> {
        let mut associated = Reader::new(frame);
        associated.take(HEADER_BYTES)?;
        let fresh: [u8; 32] = associated.array()?;
        let commit: [u8; COMMIT_BYTES] = associated.array()?;
        let dh = self.ephemeral.diffie_hellman(&ExchangeKey::from(fresh));
        if !dh.was_contributory() {
            return Err(HandshakeError::Exchange);
        }
        let (forward, reverse) = chains(&self.response, dh.as_bytes(), &self.digest, &fresh);
        let (key, _) = reverse.next();
        if !key.is_committed_by(&commit) {
            return Err(HandshakeError::Commitment);
        }
        let length = header.associated_bytes();
        let mut head = Vec::with_capacity(length);
        head.extend_from_slice(frame.get(..length).unwrap_or_default());
        let plain = key.open(header.seq, frame, length)?;
        let mut reader = Reader::new(plain);
        let instance: [u8; 8] = reader.array()?;
        let signature: [u8; SIGNATURE_BYTES] = reader.array()?;
        reader.end()?;
        let signed = signed(REPLY_DOMAIN, &head, &self.digest, &[&instance]);
        verify(&self.prekey.identity, &signed, &signature)?;
        Ok(Opened { instance, forward, reverse })
    }
}

fn verify(identity: &[u8; 32], signed: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> Result<(), HandshakeError> {
    let key = PublicKey::from_raw(identity).map_err(|_| HandshakeError::Signature)?;
    key.verify(signed, signature).map_err(|_| HandshakeError::Signature)
}
