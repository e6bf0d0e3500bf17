//! What the work of `line` costs alone: one ref, all texts, and the difference of one push.

use std::path::Path;

use anyhow::Context;
use isoform::domain::model::sha256_hex;
use isoform::domain::render::{Limits, Prepared};
use serde_json::json;

use crate::measure::{Cost, repeated};

/// Reads one ref of a local repository, as a look at a source that has not moved must.
pub fn one_ref(origin: &Path, times: usize) -> anyhow::Result<Vec<Cost>> {
    repeated(times, || {
        let repository = git2::Repository::open(origin)?;
        Ok(repository.refname_to_id("refs/heads/main")?)
    })
}

/// Renders and hashes so many texts: one template of the estate, with the data of one instance for all of them.
pub fn texts(origin: &Path, many: usize, times: usize) -> anyhow::Result<Vec<Cost>> {
    let repository = git2::Repository::open(origin)?;
    let tree = repository
        .find_reference("refs/heads/main")?
        .peel_to_tree()?;
    let mut found = None;
    tree.walk(git2::TreeWalkMode::PreOrder, |folder, entry| {
        let name = entry.name().unwrap_or_default();
        if folder.contains("svct-000")
            && folder.contains("instance_infrastructure")
            && name.ends_with(".yaml")
            && name != "manifest.yaml"
        {
            found = Some(entry.id());
            return git2::TreeWalkResult::Abort;
        }
        git2::TreeWalkResult::Ok
    })
    .or_else(|e| if found.is_some() { Ok(()) } else { Err(e) })?;
    let blob = repository.find_blob(found.context("a template")?)?;
    let text = std::str::from_utf8(blob.content())?.to_owned();
    let data = json!({
        "environment": { "name": "env-0000", "outputs": { "VpcId": "vpc-1", "TopicArn": "arn" } },
        "service": { "name": "svc-00000" },
        "service_instance": { "name": "one", "inputs": {
            "desired_count": 3, "timeout_seconds": 30, "retention_days": 14, "team": "amber", "encrypted": true,
            "versioned": false, "notify": ["a@example.org"],
        } },
    });
    let prepared = Prepared::new("t", &text).map_err(|f| anyhow::anyhow!(f.message))?;
    repeated(times, || {
        // Once for all of them.
        let ready = prepared
            .compile(Limits::default().fuel)
            .map_err(|f| anyhow::anyhow!(f.message))?;
        for _ in 0..many {
            let rendered = ready
                .render(&data, &Limits::default())
                .map_err(|f| anyhow::anyhow!(f.message))?;
            std::hint::black_box(sha256_hex(rendered.text.as_bytes()));
        }
        Ok(())
    })
}

/// Compares the newest commit with the one before it, and renders so many texts.
pub fn push(origin: &Path, many: usize, times: usize) -> anyhow::Result<Vec<Cost>> {
    let difference = repeated(times, || {
        let repository = git2::Repository::open(origin)?;
        let new = repository
            .find_reference("refs/heads/main")?
            .peel_to_commit()?;
        let difference = repository.diff_tree_to_tree(
            Some(&new.parent(0)?.tree()?),
            Some(&new.tree()?),
            None,
        )?;
        let mut bytes = 0;
        for delta in difference.deltas() {
            bytes += repository.find_blob(delta.new_file().id())?.content().len();
        }
        Ok(bytes)
    })?;
    let texts = texts(origin, many, times)?;
    Ok(difference
        .iter()
        .zip(&texts)
        .map(|(a, b)| Cost {
            wall: a.wall + b.wall,
            cpu: a.cpu + b.cpu,
        })
        .collect())
}
