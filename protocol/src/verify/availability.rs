//! Whether a receipt's data can be had: pinners have signed that they keep enough of its shards, and a final header says that validators have seen that.

use super::Falsehood;
use super::anchor::{Sealed, Seals};
use super::report::Finding;
use crate::availability::proof::Availability;
use crate::evidence::Evidence;
use crate::finality::Finality;
use crate::trust::Trust;

const NO_PROOF: &str = "no availability.bin is part of this evidence";
const DAY_S: u64 = 86_400;

/// What is found, after `finality` was found of the header of finality.bin.
pub(super) fn finding(evidence: &Evidence, trust: &Trust, finality: &Finding, seals: &mut Seals) -> Finding {
    let Some(proof) = &evidence.availability else { return Finding::Unknown(NO_PROOF.to_owned()) };
    let Some(anchor) = &evidence.finality else {
        return Finding::Unknown("without finality.bin nobody says which chain commits to it".to_owned());
    };
    judge(proof, anchor, evidence, trust, finality, seals).unwrap_or_else(Finding::False)
}

fn judge(
    proof: &Availability,
    anchor: &Finality,
    evidence: &Evidence,
    trust: &Trust,
    finality: &Finding,
    seals: &mut Seals,
) -> Result<Finding, Falsehood> {
    let batch = &proof.attestation.batch;
    if batch.tenant != anchor.tenant {
        return Err(Falsehood::OtherTenant { batch: batch.tenant, receipt: anchor.tenant });
    }
    let leaf = anchor.leaf_hash(&evidence.receipt);
    proof.check_receipt(&leaf).map_err(Falsehood::NotInBatch)?;
    let header = proof.sealed.as_ref().map_or(&anchor.header, |sealed| &sealed.header);
    let height = header.height.0;
    proof.check_attested(header).map_err(|source| Falsehood::NotAttested { height, source })?;
    let made_s = header.time.0 / 1000;
    let pinners = trust.chain(&anchor.chain).and_then(|chain| chain.pinners.as_ref());
    let counts = |pinner: &[u8; 32]| pinners.is_none_or(|pinners| pinners.contains(pinner));
    let checked = seals.check_attestation(anchor.chain, header, &proof.attestation, counts);
    checked.map_err(Falsehood::Attestation)?;
    let of_its_own = proof.sealed.as_ref().map(|it| {
        let sealed = Sealed { chain: anchor.chain, header: &it.header, seal: &it.seal, set: &it.set };
        seals.final_header(sealed, trust)
    });
    match of_its_own.as_ref().unwrap_or(finality) {
        Finding::True(_) => {}
        Finding::Unknown(why) => return Ok(Finding::Unknown(format!("its header, of height {height}: {why}"))),
        Finding::False(falsehood) => return Err(falsehood.clone()),
    }
    let (coding, pinners) = (batch.coding, proof.attestation.acknowledgements.len());
    let until_s = proof.attestation.acknowledgements.iter().map(|each| each.until_s).min().unwrap_or(made_s);
    Ok(Finding::True(format!(
        "{} of {} shards, any {} of which are enough, were kept by {pinners} pinner{} at height {height}, and are for {} days from then",
        proof.attestation.shards().len(),
        coding.n(),
        coding.k(),
        if pinners == 1 { "" } else { "s" },
        until_s.saturating_sub(made_s) / DAY_S,
    )))
}
