//! `reproduce`: the paper's claims as runs: several seeds of a network and of its ablations, one after another, and what
//! they allow to say.
//!
//! Every run is a process of this program's own `train --continue`: what is finished is not run again, and what was
//! interrupted goes on.

mod claims;
mod measure;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::config::Recipe;
use crate::data::DataSet;
use crate::disk::{create_folder, write_whole};
use crate::error::{Error, Result};
use crate::net::plan::Plan;
use crate::net::spec::Net;
use crate::run::reader::Run;
use crate::show::page;
use crate::text::{counted, duration, grouped, nearest};
use crate::train::signals::Stop;

use self::claims::{CLAIMS, Claim};
use self::measure::{Sample, of_run, show_comparison, verdict};
use crate::cli::{RecipeArgs, ReproduceArgs};

/// Exit code of a run whose loss diverged: its seed is missing, and the others go on.
const DIVERGED: i32 = 6;

/// Training images of ILSVRC 2012, for times where no data are given.
const IMAGENET: usize = 1_281_167;

pub fn reproduce(args: &ReproduceArgs) -> Result<()> {
    if args.claims.is_empty() {
        return list(args);
    }
    let claims: Vec<&Claim> = args.claims.iter().map(|name| find(name)).collect::<Result<_>>()?;
    let no_data = || Error::Usage("reproduce needs --data DIR: colour photographs, as prepare makes them".into());
    let data = args.data.data.as_ref().ok_or_else(no_data)?;
    // Before hours of training: whether all of it can be trained at all.
    DataSet::load(data)?;
    let mut runs = Vec::new();
    for claim in &claims {
        for recipe in recipes(args, claim)? {
            // A claim's base is another's, too.
            if runs.iter().all(|(before, _): &(Recipe, _)| before.name != recipe.name) {
                runs.extend((0..u64::from(args.seeds)).map(|seed| (recipe.clone(), seed)));
            }
        }
    }
    create_folder(&args.out)?;
    // A signal ends the run, which saves; this process waits for it.
    let _stop = Stop::on_signals()?;
    for (number, (recipe, seed)) in runs.iter().enumerate() {
        let run = folder(args, recipe, *seed);
        outln!("run {} of {}: {}", number + 1, runs.len(), run.display());
        train(args, data, recipe, *seed, &run)?;
    }
    let read: Vec<Run> =
        runs.iter().filter_map(|(recipe, seed)| Run::read(&folder(args, recipe, *seed)).ok()).collect();
    let findings = claims.iter().map(|claim| finding(args, claim)).collect::<Result<Vec<_>>>()?;
    findings.iter().for_each(print);
    let page = args.out.join("reproduce.html");
    write_whole(&page, page::of_claims(&findings, &read).as_bytes())?;
    outln!("wrote {}: open it in a browser", page.display());
    Ok(())
}

fn find(name: &str) -> Result<&'static Claim> {
    let names = || CLAIMS.iter().map(|claim| claim.name);
    CLAIMS.iter().find(|claim| claim.name == name).ok_or_else(|| {
        let meant = nearest(name, names()).map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default();
        let known: Vec<&str> = names().collect();
        Error::Usage(format!("no such claim: {name}{meant}; use one of {}", known.join(", ")))
    })
}

/// The recipes of a claim: its base, and that of each variant. Changes that the user makes are of a base of theirs.
fn recipes(args: &ReproduceArgs, claim: &Claim) -> Result<Vec<Recipe>> {
    let own = |name: &str| {
        super::recipe(&RecipeArgs { recipe: Some(name.to_owned()), set: Vec::new(), ..args.recipe.clone() }, "paper")
    };
    let (base, is_own) = match claim.base {
        Some(name) => (own(name)?, true),
        None => (super::recipe(&args.recipe, "paper")?, false),
    };
    let variant = |name: &str| if is_own { own(name) } else { base.ablated(name) };
    let variants = claim.variants.iter().map(|found| variant(found.recipe)).collect::<Result<Vec<_>>>()?;
    let recipes = [vec![base], variants].concat();
    for recipe in &recipes {
        let planned = Net::from_options(&recipe.net).and_then(|net| Plan::all(&net));
        planned.map_err(|error| Error::recipe(recipe.name.clone(), error.to_string()))?;
    }
    Ok(recipes)
}

fn folder(args: &ReproduceArgs, recipe: &Recipe, seed: u64) -> PathBuf {
    args.out.join(format!("{}-seed{seed}", recipe.name))
}

/// Trains a run, or what is left of it.
fn train(args: &ReproduceArgs, data: &Path, recipe: &Recipe, seed: u64, run: &Path) -> Result<()> {
    let file = args.out.join(format!("{}-seed{seed}.toml", recipe.name));
    let seeded = recipe.clone().with(&format!("train.seed={}", recipe.train.seed + seed))?;
    write_whole(&file, seeded.to_toml().as_bytes())?;
    let mut command = own_program()?;
    command.arg("train").arg("--continue").args(["--keep", "1"]).arg("--recipe").arg(&file);
    command.arg("--data").arg(data).arg("--out").arg(run).args(&args.train);
    let program = PathBuf::from(command.get_program());
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(Error::io("run", &program))?;
    // How it goes, without what a run tells of itself alone.
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()).map_while(|line| line.ok())
    {
        if ["device", "network", "epoch", "step "].iter().any(|word| line.starts_with(word)) {
            outln!("  {line}");
        }
    }
    match child.wait().map_err(Error::io("wait for", &program))?.code() {
        Some(0 | DIVERGED) => Ok(()),
        code => {
            let how = code.map_or("was killed".into(), |code| format!("ended with exit code {code}"));
            Err(Error::run(run, format!("{how}; the same command goes on where it was")))
        }
    }
}

fn own_program() -> Result<Command> {
    std::env::current_exe().map(Command::new).map_err(Error::io("find", Path::new("this program")))
}

/// The rows of a claim: its base, and each variant beside it.
fn finding(args: &ReproduceArgs, claim: &Claim) -> Result<page::Finding> {
    let sample = |recipe: &Recipe| {
        let runs = (0..u64::from(args.seeds)).filter_map(|seed| Run::read(&folder(args, recipe, seed)).ok());
        let values: Vec<f64> = runs.filter_map(|run| of_run(claim.measure, &run)).collect();
        Sample { without: usize::from(args.seeds) - values.len(), values }
    };
    let recipes = recipes(args, claim)?;
    let base = sample(&recipes[0]);
    let mut rows = vec![[recipes[0].name.clone(), base.show(), String::new(), String::new(), String::new()]];
    for (recipe, variant) in recipes[1..].iter().zip(claim.variants) {
        let values = sample(recipe);
        let show = |value| show_comparison(claim.measure, value);
        rows.push([
            recipe.name.clone(),
            values.show(),
            show(claim.measure.compare(values.mean(), base.mean())),
            variant.published.map_or("-".into(), show),
            verdict(claim.measure, &base, &values, variant.published),
        ]);
    }
    let title = format!("{} ({}): {}", claim.name, claim.section, claim.says);
    Ok(page::Finding { title, measure: claim.measure.name().into(), rows })
}

fn print(finding: &page::Finding) {
    outln!("{}\n  {}", finding.title, finding.measure);
    let width = |column: usize| finding.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    for row in &finding.rows {
        let [name, values, compared, published, verdict] = row;
        let line = format!("  {name:<0$}  {values:<1$}  {compared:>2$}", width(0), width(1), width(2));
        let rest = if verdict.is_empty() { String::new() } else { format!("  published {published:>8}  {verdict}") };
        outln!("{}", (line + &rest).trim_end());
    }
    outln!("");
}

/// All claims, what each would run, and how long that would take on this machine.
fn list(args: &ReproduceArgs) -> Result<()> {
    let images = match &args.data.data {
        Some(data) => DataSet::load(data)?.train.len(),
        None => IMAGENET,
    };
    let whose = if args.data.data.is_some() { "your" } else { "ImageNet's" };
    outln!(
        "times are for {whose} {} training images, {} of each run",
        grouped(images as u64),
        counted(args.seeds.into(), "seed[s]")
    );
    let mut speeds = BTreeMap::new();
    for claim in &CLAIMS {
        let recipes = recipes(args, claim)?;
        let base = &recipes[0];
        let speed = match speeds.get(&base.name) {
            Some(speed) => *speed,
            None => *speeds.entry(base.name.clone()).or_insert(images_per_s(base)?),
        };
        let mut epochs: Vec<u64> = recipes.iter().map(|recipe| recipe.train.epochs).collect();
        let all = epochs.iter().sum::<u64>() * u64::from(args.seeds);
        let took = speed.map_or("unknown".into(), |speed| duration((all * images as u64) as f64 / speed));
        epochs.dedup();
        let epochs: Vec<String> = epochs.iter().map(u64::to_string).collect();
        let names: Vec<&str> = recipes.iter().map(|recipe| recipe.name.as_str()).collect();
        outln!("\n{} ({}): {}", claim.name, claim.section, claim.says);
        for variant in claim.variants {
            if let Some(value) = variant.published {
                outln!("  published    {}: {}", variant.recipe, show_comparison(claim.measure, value));
            }
        }
        outln!("  measured by  {}", claim.measure.name());
        outln!("  runs         {} (about {took}; epochs of each: {})", names.join(", "), epochs.join(", "));
    }
    Ok(())
}

/// The speed of a recipe's training here, by `bench`; `None` where that fails.
fn images_per_s(recipe: &Recipe) -> Result<Option<f64>> {
    let file = std::env::temp_dir().join(format!("alexnet-split-{}-{}.toml", recipe.name, std::process::id()));
    write_whole(&file, recipe.to_toml().as_bytes())?;
    let mut command = own_program()?;
    command.args(["bench", "--json", "--steps", "2", "--recipe"]).arg(&file).stderr(Stdio::null());
    let output = command.output().map_err(Error::io("run", Path::new(command.get_program())));
    let _ = std::fs::remove_file(&file);
    let json: Option<serde_json::Value> = serde_json::from_slice(&output?.stdout).ok();
    Ok(json.and_then(|json| json["images_per_s"].as_f64()))
}
