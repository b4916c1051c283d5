//! `prepare`: a data set as people have it to shards that training reads.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::data::prepare::{self, Observer, Options};
use crate::data::shards::{Bad, Description, Shard};
use crate::data::sources::{self, ClassesFrom, Part, SourceOptions, Sources};
use crate::error::Result;
use crate::show::logs::BARS;
use crate::text::{counted, quoted, with_example};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde_json::json;

use crate::cli::{BadImages, ClassesFromArg, PrepareArgs};

/// Training images from which on the paper's recipe is proposed: those of a tenth of ImageNet.
const FOR_PAPER: usize = 100_000;

pub fn prepare(args: &PrepareArgs) -> Result<()> {
    if let Some(threads) = args.threads {
        // Only the first call sets it.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global();
    }
    let sources = sources::open(&args.source, &options_of(args))?;
    let classes = count_classes(&sources);
    if !args.json {
        say_what_was_found(args, &sources, &classes);
    }
    let options = Options {
        size: args.size.into(),
        store: args.store,
        quality: args.quality,
        max_bad_images: if args.bad_images == BadImages::Skip { args.max_bad_images } else { 0 },
    };
    let folder = match &args.folder {
        Some(folder) if !args.dry_run => folder,
        folder => {
            if args.json {
                outln!("{}", facts(&sources, &classes));
            }
            return folder.as_ref().map_or(Ok(()), |folder| prepare::check(&args.source, &sources, folder, &options));
        }
    };
    let start = Instant::now();
    let prepared = prepare::prepare(&args.source, &sources, folder, &options, &Progress::new(args.json))?;
    let bytes: u64 = prepared.train.iter().chain(&prepared.val).map(|shard| shard.bytes).sum();
    if args.json {
        let images = |shards: &[Shard]| shards.iter().map(|shard| shard.images).sum::<usize>();
        let mut facts = facts(&sources, &classes);
        facts["train"] = images(&prepared.train).into();
        facts["val"] = images(&prepared.val).into();
        facts["bytes"] = bytes.into();
        facts["seconds"] = start.elapsed().as_secs_f64().into();
        facts["bad_images"] = json!(prepared.bad_images);
        outln!("{facts}");
        return Ok(());
    }
    say_what_was_made(&sources, &prepared);
    outln!("wrote    {}: {} in {}", folder.display(), HumanBytes(bytes), HumanDuration(start.elapsed()));
    if !sources.val.is_empty() {
        // The paper's recipe is for sets of its size; others would wait for days, or have no whole batch.
        let recipe = if sources.train.len() >= FOR_PAPER { "--recipe paper " } else { "" };
        outln!("\nNext: alexnet-split {recipe}--data {}", quoted(&folder.to_string_lossy()));
    }
    Ok(())
}

fn say_what_was_made(sources: &Sources, prepared: &Description) {
    for bad in &prepared.bad_images {
        outln!("skipped  {}: {}", bad.name, bad.problem);
    }
    for (part, what) in [
        (&sources.train, "class[es] left without an image to train on"),
        (&sources.val, "class[es] left without a held-out image"),
    ] {
        let emptied = emptied_classes(sources, part, &prepared.bad_images);
        if let Some(first) = emptied.first() {
            outln!("note     {}", with_example(emptied.len(), what, &format!("{first:?}")));
        }
    }
    let (mean, devs) = (prepared.colours.mean, prepared.colours.eigenvalues.map(f64::sqrt));
    outln!(
        "colours  mean {:.1} {:.1} {:.1}; deviations along the axes {:.1} {:.1} {:.1}",
        mean[0],
        mean[1],
        mean[2],
        devs[0],
        devs[1],
        devs[2]
    );
}

/// A class, and its images to train on and to hold out.
struct ClassCount<'a> {
    name: &'a str,
    images: [usize; 2],
}

fn count_classes(sources: &Sources) -> Vec<ClassCount<'_>> {
    let mut classes: Vec<_> = sources.classes.iter().map(|name| ClassCount { name, images: [0; 2] }).collect();
    for (number, part) in [&sources.train, &sources.val].into_iter().enumerate() {
        (0..part.len()).for_each(|index| classes[part.item(index).class as usize].images[number] += 1);
    }
    classes
}

/// Classes that are printed at the beginning and the end of a long list.
const FIRST_CLASSES: usize = 10;
const LAST_CLASSES: usize = 3;

fn say_what_was_found(args: &PrepareArgs, sources: &Sources, classes: &[ClassCount]) {
    let (train, val, count) = (sources.train.len(), sources.val.len(), classes.len());
    outln!("source   {}: {}", args.source.display(), sources.form);
    outln!("images   {train} to train on, {val} held out, {}", counted(count, "class[es]"));
    for (number, ClassCount { name, images: [train, val] }) in classes.iter().enumerate() {
        if number < FIRST_CLASSES || number + LAST_CLASSES >= count {
            outln!("class    {}: {train} to train on, {val} held out", name.replace(char::is_control, "?"));
        } else if number == FIRST_CLASSES {
            outln!("class    and {} more", count - FIRST_CLASSES - LAST_CLASSES);
        }
    }
    sources.notes.iter().for_each(|note| outln!("note     {note}"));
    if val == 0 {
        outln!("note     nothing is held out: training refuses such a set, for it measures itself on held-out images");
    }
}

/// What was found, for programs.
fn facts(sources: &Sources, classes: &[ClassCount]) -> serde_json::Value {
    let class =
        |ClassCount { name, images: [train, val] }: &ClassCount| json!({ "name": name, "train": train, "val": val });
    json!({
        "form": sources.form, "train": sources.train.len(), "val": sources.val.len(), "classes": classes.len(),
        "class_counts": classes.iter().map(class).collect::<Vec<_>>(), "notes": sources.notes,
    })
}

/// The classes that had images in a part, all of which were left out.
fn emptied_classes<'a>(sources: &'a Sources, part: &Part, bad: &[Bad]) -> Vec<&'a String> {
    let bad: HashSet<&str> = bad.iter().map(|bad| &*bad.name).collect();
    let mut counts = vec![[0, 0]; sources.classes.len()];
    for item in (0..part.len()).map(|index| part.item(index)) {
        let [all, left] = &mut counts[item.class as usize];
        *all += 1;
        *left += usize::from(!bad.contains(&*item.name));
    }
    sources
        .classes
        .iter()
        .zip(counts)
        .filter(|(_, [all, left])| *all > 0 && *left == 0)
        .map(|(class, _)| class)
        .collect()
}

/// A bar on a terminal, plain lines elsewhere, nothing with JSON.
struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    seen: Mutex<Option<Seen>>,
}

/// What has been shown.
struct Seen {
    began: Instant,
    /// Images when it began: what an earlier run did costs no time.
    first: usize,
    /// The most images so far: threads report out of order.
    most: usize,
    last_line: Instant,
}

/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Progress {
    fn new(json: bool) -> Self {
        let bar = (!json && std::io::stderr().is_terminal()).then(|| BARS.add(ProgressBar::no_length()));
        if let Some(bar) = &bar {
            let style = ProgressStyle::with_template("prepare [{bar:24}] {pos}/{len} images, {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        }
        Progress { lines: !json && bar.is_none(), bar, seen: Mutex::new(None) }
    }
}

impl Observer for Progress {
    fn prepared(&self, done: usize, total: usize) {
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        let seen = seen.get_or_insert(Seen { began: now, first: done, most: done, last_line: now });
        seen.most = seen.most.max(done);
        let done = seen.most;
        let per_s = (done - seen.first) as f64 / (now - seen.began).as_secs_f64().max(1e-3);
        let left = Duration::from_secs_f64(((total - done) as f64 / per_s.max(1e-3)).min(1e9));
        let message = format!("{per_s:.0} images/s, {} left", HumanDuration(left));
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(message);
            if done == total {
                bar.finish_and_clear();
            }
        } else if self.lines && now - seen.last_line >= LINE_EVERY {
            seen.last_line = now;
            errln!("prepare  {done}/{total} images, {message}");
        }
    }
}

/// What the flags say about the set.
fn options_of(args: &PrepareArgs) -> SourceOptions {
    SourceOptions {
        val_fraction: args.val_fraction,
        train: args.train.clone(),
        val: args.val.clone(),
        classes: args.classes.clone(),
        classes_from: args.classes_from.map(|arg| match arg {
            ClassesFromArg::Folders => ClassesFrom::Folders,
            ClassesFromArg::Names => ClassesFrom::Names,
        }),
        image_column: args.image_column.clone(),
        label_column: args.label_column.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_may_report_out_of_order() {
        let progress = Progress::new(true);
        [(4, 8), (3, 8), (8, 8), (7, 8)].iter().for_each(|(done, total)| progress.prepared(*done, *total));
    }
}
