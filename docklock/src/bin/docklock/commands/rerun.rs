//! `docklock rerun`: the run of a receipt done again, and the two compared.

mod containerd;
mod image;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bpi_protocol::chain::{Record, run_json};
use bpi_protocol::digest::Sha256Digest;
use bpi_protocol::run::Run;
use bpi_protocol::verify::{Level, Report};
use clap::Args;
use docklock::cage::{self, PlanRequest};
use docklock::config::Config;
use docklock::host::HostCapabilities;
use docklock::rerun::recipe::{self, RecipeError};
use docklock::rerun::{CONFIG_BYTES_MAX, CONFIG_FILE, OUTPUTS_FILE, TRACE_FILE};
use docklock::seal::RUNTIME_ABI;
use docklock::spool::{Boundary, Spool, boundaries};
use docklock::task::{Engine, Io, Stdio};
use oci_spec::runtime::Spec;
use serde_json::json;

use super::diff;
use super::receipts;
use super::run::attempt::{self, Attempt, Ground, Order, ROOTFS_TYPE};
use super::run::{parse_mount, rootfs_of, write_listing};
use crate::difference::{Difference, Side};
use crate::failure::Failure;
use crate::foreground::{self, Signals};
use crate::output::{Format, print, print_json};
use crate::stage::Stage;

/// Do the run of a receipt again, and compare
#[derive(Args)]
#[command(
    long_about = "Does the run of a receipt again: the same configuration, profile, seed and inputs over the same root file system, in the cage. Then \
it compares the run-hashes, and if they differ names the first part and, where the logs of both runs are at hand, the first decision with its \
call, task, arguments and logical time.

RECEIPT is evidence (a folder, bundle or record), or the container id or number of a receipt of this host. The configuration comes from this \
host's spool, or from config.json in the folder (`docklock run --receipt-dir DIR --repeatable`). The root file system is taken from containerd's \
content store by the image's digest, unless you name it. The rerun is a run like any other: it has a receipt of its own on boundary local.",
    after_long_help = "\
Exit status:
  0    the same run-hash again
  5    another one
  3    it cannot be done again here; one sentence says why
  2    wrong usage, or input that cannot be read as what it should be
  1    failed

Examples:
  docklock rerun hello
  docklock rerun ./evidence --image hello.tar
  docklock rerun ./evidence --trust host.key.pub.pem      and check the evidence with it
  docklock rerun ./evidence --rootfs ./debian --trace again.trace"
)]
pub(crate) struct Arguments {
    /// Evidence, or the container id or number of a receipt of this host
    #[arg(value_name = "RECEIPT")]
    receipt: String,
    /// Whose chain the id or number belongs to [default: the only one that knows it]
    #[arg(long, value_name = "NAMESPACE")]
    boundary: Option<Boundary>,
    /// Root file system; of an image that is known by its manifest it is taken on your word
    #[arg(long, value_name = "DIR", group = "root")]
    rootfs: Option<PathBuf>,
    /// Bundle: its root file system, and its config.json if the configuration is nowhere else
    #[arg(long, value_name = "DIR", group = "root")]
    bundle: Option<PathBuf>,
    /// Image as an OCI layout, a folder or a tar (`ctr images export`); its manifest has to have the receipt's digest
    #[arg(long, value_name = "FILE", group = "root")]
    image: Option<PathBuf>,
    /// Take the image from containerd's content store, by the program `ctr` [namespace default: the receipt's boundary]
    #[arg(long, value_name = "NAMESPACE", group = "root", num_args = 0..=1, default_missing_value = "")]
    from_containerd: Option<String>,
    /// The configuration in its normal form
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// What to mount where the run had a mount from its host
    #[arg(long, value_name = "PATH=SOURCE")]
    mount: Vec<String>,
    /// What the run read on standard input, if it read something
    #[arg(long, value_name = "FILE")]
    stdin: Option<PathBuf>,
    /// Keep the log of decisions in a new file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Whom to believe: with it the whole ladder of `docklock verify --level rerun` is judged, and its exit status is this one's
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Exit status when the rerun differs.
const DIFFERS: u8 = 5;

/// The run that is to be done again.
struct First {
    side: Side,
    run: Run,
    boundary: String,
    folder: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<u8, Failure> {
    let config = Config::load(config)?;
    foreground::log_to_stderr(&config.log_level);
    if let Some(trace) = arguments.trace.as_ref().filter(|trace| trace.symlink_metadata().is_ok()) {
        return Err(Failure::Exists { path: trace.clone() });
    }
    if let Some(trust) = &arguments.trust {
        // Before anything runs: a trust file that cannot be read, and a receipt of this host's spool, which is no evidence yet.
        super::verify::trusted(Some(trust))?;
        super::verify::read_evidence(Path::new(&arguments.receipt))?;
    }
    let first = find(arguments, &config)?;
    refuse_another_build(&first.run)?;
    let mut notes = Vec::new();
    let stage = Stage::make(&config.stage_dir)?;
    let lower = lower(arguments, &first, &stage, &mut notes)?;
    let spec = specification(arguments, &config, &first, &lower)?;
    check_plan(&config, &spec, &first.run)?;
    let stdin = stdin(arguments, &first.run)?;
    let log = arguments.trace.clone().unwrap_or_else(|| stage.dir().join(TRACE_FILE));
    let listing = stage.dir().join(OUTPUTS_FILE);
    let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    let ground = Ground { spec, bundle: PathBuf::new(), lower, terminal, pin: false, stage: Some(stage) };
    let order = Order {
        profile: Some(&first.run.cage.profile),
        seed: first.run.params.seed.map(|seed| *seed.as_bytes()),
        trace: Some(&log),
        unmeasured: first.run.result.outputs.scope == "none",
        ..Order::default()
    };
    let engine = Engine::start(config.clone())?;
    let attempt = Signals::hold().and_then(|signals| {
        let attended = signals.pass(false)?;
        attempt::make(&engine, &ground, &attended, order, silent(stdin, terminal)?)
    });
    engine.shut_down()?;
    conclude(arguments, &config, &first, &attempt?, &log, &listing, notes)
}

/// Compares and tells.
fn conclude(
    arguments: &Arguments,
    config: &Config,
    first: &First,
    attempt: &Attempt,
    log: &Path,
    listing: &Path,
    notes: Vec<String>,
) -> Result<u8, Failure> {
    if let Err(reason) = &attempt.exit.seal {
        let verdict = format!("different: the rerun has no receipt: {reason}");
        match arguments.format {
            Format::Text => print(&format!("{}\n", crate::output::plain(&verdict)))?,
            Format::Json => print_json(&json!({ "same": false, "verdict": verdict }))?,
        }
        return Ok(DIFFERS);
    }
    let mut run = attempt.receipt(&config.spool_dir)?.0.run;
    // What it started from was judged above; the record of the rerun itself names no image that it cannot vouch for.
    run.image.clone_from(&first.run.image);
    let hash = |run: &Run| {
        let failed = |error: bpi_protocol::canonical::CanonicalError| Failure::System {
            deed: "write a run in its canonical form",
            source: std::io::Error::other(error),
        };
        Ok::<_, Failure>(run_json(run).map_err(failed)?.0)
    };
    let (wanted, found) = (hash(&first.run)?, hash(&run)?);
    if run.result.outputs != first.run.result.outputs
        && first.side.listing.is_some()
        && let Some(layer) = &attempt.layer
    {
        write_listing(layer, listing)?;
    }
    let second = Side {
        name: "rerun".to_owned(),
        run: Some(run),
        trace: Some(log.to_path_buf()),
        listing: Some(listing.to_path_buf()),
    };
    let mut difference = Difference::between(&first.side, &second)?;
    notes.into_iter().for_each(|note| difference.note(note));
    let ladder = ladder(arguments, found, wanted)?;
    match arguments.format {
        Format::Json => {
            let mut page =
                json!({ "runHash": wanted.to_string(), "rerunHash": found.to_string(), "difference": difference });
            if let Some(ladder) = &ladder {
                page["ladder"] = super::verify::as_json(ladder);
            }
            print_json(&page)?;
        }
        Format::Text => {
            print(&difference.text())?;
            let verdict = if wanted == found { "the same" } else { "another" };
            print(&format!("rerun: {verdict} run-hash: {found}\n"))?;
            if let Some(ladder) = &ladder {
                print(&crate::output::plain(&ladder.to_string()))?;
            }
        }
    }
    Ok(match ladder {
        Some(ladder) => ladder.exit_code(),
        None if wanted == found => 0,
        None => DIFFERS,
    })
}

/// The ladder of the evidence with what came of the rerun, where somebody is to be believed.
fn ladder(arguments: &Arguments, found: Sha256Digest, wanted: Sha256Digest) -> Result<Option<Report>, Failure> {
    let (path, Some(trust)) = (Path::new(&arguments.receipt), &arguments.trust) else { return Ok(None) };
    let trust = super::verify::trusted(Some(trust))?;
    let report = super::verify::judge(path, &super::verify::read_evidence(path)?, &trust, Level::Rerun)?;
    Ok(Some(report.with_rerun(found, wanted)))
}

/// The receipt, from a path or from this host's chains.
fn find(arguments: &Arguments, config: &Config) -> Result<First, Failure> {
    let path = Path::new(&arguments.receipt);
    if path.exists() {
        let side = diff::side(path, None)?;
        let entry = super::verify::read_evidence(path)?
            .entry()
            .map_err(|error| Failure::EvidenceMalformed { path: path.to_path_buf(), reason: error.to_string() })?;
        let boundary = entry.record.chain().boundary.clone();
        let Record::Receipt(receipt) = entry.record else {
            return Err(Failure::NoGround(format!("{} is no receipt", path.display())));
        };
        let folder = path.is_dir().then(|| path.to_path_buf());
        return Ok(First { side: Side { name: "receipt".to_owned(), ..side }, run: receipt.run, boundary, folder });
    }
    let (spool, records) = receipts::find(&config.spool_dir, arguments.boundary.as_ref(), &arguments.receipt)?;
    let boundary = spool.boundary().to_string();
    let newest = records.iter().rev().find_map(|stored| match &stored.record {
        Record::Receipt(receipt) => Some(receipt.run.clone()),
        _ => None,
    });
    let Some(run) = newest else { return Err(receipts::no_receipt(&spool, &arguments.receipt, &records)) };
    let side = Side { name: "receipt".to_owned(), run: Some(run.clone()), trace: None, listing: None };
    Ok(First { side, run, boundary, folder: None })
}

/// Programs would see another machine under another abi.
fn refuse_another_build(run: &Run) -> Result<(), Failure> {
    if run.runtime.abi == RUNTIME_ABI {
        return Ok(());
    }
    let (found, wanted) = (RUNTIME_ABI.to_string(), run.runtime.abi.to_string());
    Err(Failure::OtherGround { what: "the abi of docklock", found, wanted })
}

/// The layers to run over, topmost first.
fn lower(
    arguments: &Arguments,
    first: &First,
    stage: &Stage,
    notes: &mut Vec<String>,
) -> Result<Vec<PathBuf>, Failure> {
    if let Some(image) = &arguments.image {
        return image::layers(image, &manifest_of(&first.run)?, stage);
    }
    let named = match (&arguments.rootfs, &arguments.bundle) {
        (Some(rootfs), _) => Some(rootfs.clone()),
        (None, Some(bundle)) => Some(rootfs_of(bundle)?.0),
        (None, None) => None,
    };
    let Some(root) = named else {
        if arguments.from_containerd.is_none() && first.boundary == Boundary::local().as_str() {
            return Err(Failure::NoGround(
                "the receipt names no image of containerd's; name what it ran in with --rootfs, --bundle or --image"
                    .to_owned(),
            ));
        }
        let manifest = manifest_of(&first.run)?;
        let namespace = arguments.from_containerd.as_deref().filter(|name| !name.is_empty());
        let layout = containerd::fetch(namespace.unwrap_or(&first.boundary), &manifest, stage)?;
        return image::layers(&layout, &manifest, stage);
    };
    let failed = |source| Failure::File { deed: "open the root file system", path: root.clone(), source };
    let root = root.canonicalize().map_err(failed)?;
    check_root(&first.run, &root, notes)?;
    Ok(vec![root])
}

/// A root file system that the receipt has measured has to be that one; of another nobody here can tell.
fn check_root(run: &Run, root: &Path, notes: &mut Vec<String>) -> Result<(), Failure> {
    match &run.image {
        Some(image) if image.media_type == ROOTFS_TYPE => {
            let failed = |error| Failure::Task(docklock::task::TaskError::Outputs(error));
            let found = attempt::measure_root(root).map_err(failed)?;
            if found == image.digest {
                return Ok(());
            }
            let (found, wanted) = (found.to_string(), image.digest.to_string());
            Err(Failure::OtherGround { what: "the digest of the root file system", found, wanted })
        }
        Some(_) => {
            notes.push(format!("that {} is the image of the receipt was taken on your word", root.display()));
            Ok(())
        }
        None => {
            notes.push("the receipt names no image, so nobody can tell whether this is what it ran in".to_owned());
            Ok(())
        }
    }
}

fn manifest_of(run: &Run) -> Result<Sha256Digest, Failure> {
    match &run.image {
        Some(image) if image.media_type != ROOTFS_TYPE => Ok(image.digest),
        Some(_) => Err(Failure::NoGround("it ran in a folder, not in an image; name it with --rootfs".to_owned())),
        None => Err(Failure::NoGround("the receipt names no image; name what it ran in with --rootfs".to_owned())),
    }
}

/// The specification, from the configuration that is at hand or else from the bundle itself.
fn specification(arguments: &Arguments, config: &Config, first: &First, lower: &[PathBuf]) -> Result<Spec, Failure> {
    let root = lower.first().cloned().unwrap_or_default();
    let form = match configuration(arguments, config, first) {
        Ok(form) => form,
        Err(Failure::NoConfig { .. }) if arguments.bundle.is_some() => {
            let bundle = arguments.bundle.as_deref().unwrap_or(Path::new("."));
            let path = bundle.join("config.json");
            return Spec::load(&path).map_err(|error| Failure::Bundle { path, reason: error.to_string() });
        }
        Err(failure) => return Err(failure),
    };
    let mut mounts = BTreeMap::new();
    for text in &arguments.mount {
        let (path, source) = parse_mount(text)?;
        mounts.insert(path, PathBuf::from(source));
    }
    Ok(recipe::specification(&first.run, &form, &root, &mounts)?)
}

/// The normal form that the receipt's digest is of.
fn configuration(arguments: &Arguments, config: &Config, first: &First) -> Result<Vec<u8>, Failure> {
    let wanted = first.run.config.digest;
    if let Some(path) = &arguments.spec {
        return read_config(path);
    }
    if let Some(path) = first.folder.as_ref().map(|folder| folder.join(CONFIG_FILE)).filter(|path| path.is_file()) {
        let found = read_config(&path)?;
        let digest = Sha256Digest::of(&found);
        if digest != wanted {
            return Err(Failure::Recipe(RecipeError::OtherConfig { found: digest, wanted }));
        }
        return Ok(found);
    }
    for boundary in boundaries(&config.spool_dir)? {
        if let Some(found) = Spool::open_existing(&config.spool_dir, &boundary)?.config(&wanted)? {
            return Ok(found);
        }
    }
    let folder = first.folder.as_ref().map_or_else(String::new, |folder| format!(" nor in {}", folder.display()));
    let why = match first.run.params.seed {
        Some(_) => "",
        None => ", for the kernel scheduled this run, and such configurations are kept nowhere",
    };
    let looked = format!("there is none with digest {wanted} below {}{folder}{why}", config.spool_dir.display());
    Err(Failure::NoConfig { looked })
}

fn read_config(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |source| Failure::File { deed: "read", path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > CONFIG_BYTES_MAX {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

/// Planned before anything runs: what would be another run is told as such.
fn check_plan(config: &Config, spec: &Spec, run: &Run) -> Result<(), Failure> {
    let policy = cage::profile_for(spec, Some(&run.cage.profile), config).map_err(docklock::task::TaskError::Plan)?;
    if policy.digest() != run.cage.digest {
        let (found, wanted) = (policy.digest().to_string(), run.cage.digest.to_string());
        return Err(Failure::OtherGround { what: "the digest of the profile", found, wanted });
    }
    let seed = run.params.seed.map(|seed| *seed.as_bytes());
    let host = HostCapabilities::probe();
    let request = PlanRequest { spec, policy: &policy, host: &host, rootfs: Path::new("/"), has_layer: true, seed };
    let plan = cage::plan(&request).map_err(docklock::task::TaskError::Plan)?;
    if plan.config_digest != run.config.digest {
        let (found, wanted) = (plan.config_digest.to_string(), run.config.digest.to_string());
        return Err(Failure::OtherGround { what: "the digest of the configuration", found, wanted });
    }
    if plan.params != run.params {
        let text = |run: &bpi_protocol::run::Params| {
            format!("{} from {:?} s after 1970", run.schedule, run.epoch.unwrap_or_default())
        };
        let (found, wanted) = (text(&plan.params), text(&run.params));
        return Err(Failure::OtherGround { what: "the schedule", found, wanted });
    }
    Ok(())
}

/// What the run read, if it read something.
fn stdin(arguments: &Arguments, run: &Run) -> Result<File, Failure> {
    let wanted =
        run.inputs.iter().find(|input| input.name == "stdin").map_or(Sha256Digest::EMPTY, |input| input.digest);
    let path = match &arguments.stdin {
        Some(path) => path.clone(),
        None if wanted == Sha256Digest::EMPTY => PathBuf::from("/dev/null"),
        None => {
            let what =
                format!("it read something on standard input, with digest {wanted}; name that with --stdin FILE");
            return Err(Failure::NoGround(what));
        }
    };
    File::open(&path).map_err(|source| Failure::File { deed: "open", path, source })
}

/// The rerun's output is compared, not shown.
fn silent(stdin: File, terminal: bool) -> Result<Io, Failure> {
    let null = || {
        let path = PathBuf::from("/dev/null");
        let opened = File::options().write(true).open(&path);
        opened.map(|file| Stdio::Fd(file.into())).map_err(|source| Failure::File { deed: "open", path, source })
    };
    Ok(Io { stdin: Stdio::Fd(stdin.into()), stdout: null()?, stderr: null()?, terminal })
}
