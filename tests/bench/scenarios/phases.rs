//! What a full look at the standard estate is made of, one part after the other, without a daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isoform::domain::bundle;
use isoform::domain::estate::{
    Asker, Context, Grant, May, Placement, Sheets, SourceTree, TemplateVersion, Templates, compile,
    current_stored,
};
use isoform::domain::model::sha256_hex;
use isoform::domain::plan::owner_tags;
use isoform::domain::policy::{ApprovalRule, Mode, PruneRule};
use isoform::domain::render::{Limits, Prepared};
use isoform::domain::spec::{TemplateRef, parse_service_spec, parse_sync};
use isoform::domain::template::{find_bundles, load_bundle, text_of};
use isoform::git::Mirror;
use isoform::testing::estate::{Estate, PLACEMENTS, Shape};

use crate::Options;
use crate::measure::{print, repeated};

pub fn run(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let origin = folder.path().join("origin.git");
    let shape = Shape {
        services: options.services,
        ..Shape::standard()
    };
    Estate::make(&origin, shape)?;
    let head = std::fs::read_to_string(origin.join("refs/heads/main"))?;
    let head = head.trim().parse()?;
    let mirror = Mirror::of(&origin)?;
    let n = options.repeat;
    print(
        "read the tree",
        &repeated(n, || Ok(mirror.read(&head)?))?,
        "",
    );
    let files = mirror.read(&head)?.files;
    let sync = text_of(&files, "isoform.yaml").map_err(|f| anyhow::anyhow!(f.message))?;
    print(
        "parse the sync file",
        &repeated(n, || Ok(parse_sync("isoform.yaml", sync, None)))?,
        &format!("{} bytes", sync.len()),
    );
    let specs: Vec<(&String, &str)> = files
        .iter()
        .filter(|(p, _)| p.starts_with("services/"))
        .filter_map(|(p, b)| Some((p, std::str::from_utf8(&b.bytes).ok()?)))
        .collect();
    let costs = repeated(n, || {
        Ok(specs
            .iter()
            .filter(|(p, t)| parse_service_spec(p, t).is_ok())
            .count())
    })?;
    print("parse all specs", &costs, &format!("{} files", specs.len()));
    let load = || {
        let mut templates = Templates::default();
        for path in find_bundles(&files) {
            let (Some(bundle), _) = load_bundle(&files, &path.root) else {
                continue;
            };
            let major = path.major.unwrap_or(1);
            let version = TemplateVersion {
                version: format!("{}@{major}.0", path.name),
                digest: bundle::digest(&bundle.files),
                root: path.root.clone(),
                bundle: Arc::new(bundle),
            };
            let reference = TemplateRef {
                name: path.name,
                major,
                minor: None,
            };
            templates.add(version.bundle.kind, &reference, version.clone());
        }
        templates
    };
    print("load all bundles", &repeated(n, || Ok(load()))?, "");
    let templates = load();
    let mut placements = BTreeMap::new();
    for index in 0..PLACEMENTS {
        let name: isoform::domain::model::PlacementName = format!("place-{index}").parse()?;
        let placement = Placement {
            name: name.clone(),
            account: format!("{:012}", index + 1).parse()?,
            regions: vec!["us-east-1".parse()?],
            mode: Mode::Auto,
            critical: false,
            blast_radius: 10,
            rule: ApprovalRule::default(),
            prune: PruneRule::default(),
            pin_references: false,
        };
        placements.insert(name, placement);
    }
    let grant = Grant {
        source: "estate".parse()?,
        mode: Mode::Auto,
        may: May::everything(),
    };
    let compiled = || {
        let tree = SourceTree {
            grant: &grant,
            branch: "main",
            files: &files,
            left_out: &BTreeSet::new(),
        };
        compile(&[tree], &placements, &templates, &current_stored)
    };
    print("compile all targets", &repeated(n, || Ok(compiled()))?, "");
    let compiled = compiled();
    print("levels", &repeated(n, || Ok(compiled.graph.levels()))?, "");
    let fill = |sheets: &mut Sheets| {
        sheets.fill(
            &compiled,
            &mut Asker {
                real: &|_| None,
                settled: &|_| false,
                known: &mut |_, _| false,
                on: &mut |_, _, _| {},
            },
        )
    };
    let costs = repeated(n, || Ok(fill(&mut Sheets::default())))?;
    print(
        "render and check all targets",
        &costs,
        &format!("{} targets", compiled.targets.len()),
    );
    let mut sheets = Sheets::default();
    fill(&mut sheets);
    let costs = repeated(n, || Ok(fill(&mut sheets)))?;
    print("the same once more", &costs, "");
    let target = compiled
        .targets
        .values()
        .find(|t| t.address.kind() == "svc")
        .ok_or_else(|| anyhow::anyhow!("no instance"))?;
    let outputs: BTreeMap<String, String> = [("VpcId", "vpc-1"), ("TopicArn", "arn")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let zeros = "0".repeat(32);
    let (owner, stack_name) = (owner_tags(&zeros.parse()?, &zeros.parse()?), "s".parse()?);
    let known = |_: &_| Some(outputs.clone());
    let context = Context {
        owner: &owner,
        stack_name: &stack_name,
        outputs: &known,
        limits: Limits::default(),
    };
    let render = || {
        target
            .render(&context)
            .map_err(|f| anyhow::anyhow!("{f:?}"))
    };
    print(
        "render and check one target",
        &repeated(n * 20, render)?,
        "",
    );
    let rendering = render()?;
    let text = rendering.desired.template.clone();
    let costs = repeated(n * 20, || {
        isoform::domain::cfn::parse_template("t", &text).map_err(|f| anyhow::anyhow!("{f:?}"))
    })?;
    print(
        "of that: parse what was rendered",
        &costs,
        &format!("{} bytes", text.len()),
    );
    let part = target
        .template()
        .and_then(|t| t.bundle.instance.clone())
        .ok_or_else(|| anyhow::anyhow!("no template"))?;
    let costs = repeated(n * 20, || {
        isoform::domain::render::render("t", &part.text, &rendering.data, &Limits::default())
            .map_err(|f| anyhow::anyhow!("{}", f.message))
    })?;
    print(
        "of that: render",
        &costs,
        &format!("{} bytes", part.text.len()),
    );
    let prepared = Prepared::new("t", &part.text).map_err(|f| anyhow::anyhow!(f.message))?;
    let ready = prepared
        .compile(200_000)
        .map_err(|f| anyhow::anyhow!(f.message))?;
    let costs = repeated(n * 20, || {
        ready
            .render(&rendering.data, &Limits::default())
            .map_err(|f| anyhow::anyhow!("{}", f.message))
    })?;
    print("render, compiled", &costs, "");
    let costs = repeated(n * 20, || {
        target
            .draft(&context, Some(&ready))
            .map_err(|f| anyhow::anyhow!("{f:?}"))
    })?;
    print("render, compiled, with the data of the target", &costs, "");
    let costs = repeated(n * 20, || {
        Ok(rendering
            .desired
            .given(&isoform::domain::model::KeyedHasher::new(b"k")))
    })?;
    print("the digest of what was given", &costs, "");
    let costs = repeated(n * 20, || Ok(sha256_hex(text.as_bytes())))?;
    print("SHA-256 of what was rendered", &costs, "");
    let keyed = isoform::domain::model::KeyedHasher::new(b"k");
    print(
        "the digest of a target",
        &repeated(n * 20, || Ok(rendering.desired.digest(&keyed)))?,
        "",
    );
    Ok(())
}
