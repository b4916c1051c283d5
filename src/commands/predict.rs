//! `predict`: a run's best five classes for image files or held-out images.

use std::ffi::OsStr;
use std::path::Path;

use crate::backend::Backend;
use crate::data::ImageSet;
use crate::error::{Error, Result};
use crate::show::picture::picture;
use crate::train::session::{Session, softmax};
use serde_json::json;

use super::on_run;
use crate::cli::PredictArgs;

pub fn predict(args: &PredictArgs) -> Result<()> {
    let needs_data = args.images.is_empty() || args.images.iter().any(|image| number(image).is_some());
    on_run!(&args.run, needs_data, |session| predict_session(args, &mut session))
}

/// The number of a held-out image, where `image` is one and not the name of a file.
fn number(image: &OsStr) -> Option<u32> {
    image.to_str().and_then(|text| text.parse().ok()).filter(|_| !Path::new(image).exists())
}

fn predict_session<B: Backend>(args: &PredictArgs, session: &mut Session<B>) -> Result<()> {
    let count = session.data().held_out.len();
    let images = match &args.images[..] {
        [] => (0..count.min(5)).map(|number| number.to_string().into()).collect(),
        images => images.to_vec(),
    };
    let mut failures = Vec::new();
    for image in &images {
        let Err(error) = predict_image(image, args.json, session) else { continue };
        // A damaged image does not stop the others.
        if args.json {
            outln!("{}", json!({"image": image.to_string_lossy(), "error": error.to_string()}));
        } else if images.len() > 1 {
            errln!("error: {error}");
        }
        failures.push(error);
    }
    let (failed, of) = (failures.len(), images.len());
    match failures.into_iter().next() {
        None => Ok(()),
        Some(error) if of == 1 => Err(error),
        Some(error) => Err(Error::Several { failed, of, what: "images", first: Box::new(error) }),
    }
}

fn predict_image<B: Backend>(image: &OsStr, as_json: bool, session: &mut Session<B>) -> Result<()> {
    let (file, number, count) = (Path::new(image), number(image), session.data().held_out.len());
    if let Some(outside) = number.filter(|&number| number as usize >= count) {
        let problem = format!("there is no image {outside}; they are numbered 0 to {}", count - 1);
        return Err(Error::data("held-out images", problem));
    }
    let own = match number {
        Some(_) => None,
        None => Some(ImageSet::of_file(file, &session.data().held_out)?),
    };
    let (set, index) = (own.as_ref().unwrap_or(&session.data().held_out), number.unwrap_or(0));
    let batch = session.input().batch(set, &[index], None)?;
    let seen = (!as_json).then(|| picture(set, index as usize)).transpose()?;
    session.pair().evaluate(&batch)?;
    let probabilities = softmax(&session.pair().logits(1)?.remove(0));
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let data = session.data();
    let name = |class: usize| data.classes.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
    let shown = |class: usize| name(class).replace(char::is_control, "?");
    let top = order.iter().take(5).map(|&class| (class, probabilities[class]));
    let label = number.map(|number| data.held_out.labels[number as usize] as usize);
    if as_json {
        let top: Vec<_> =
            top.map(|(class, probability)| json!({"class": name(class), "probability": probability})).collect();
        let image = number.map_or(json!(file.to_string_lossy()), |number| json!(number));
        outln!("{}", json!({"image": image, "label": label.map(name), "top": top}));
        return Ok(());
    }
    match label {
        Some(label) => outln!("\nheld-out image {index}, labelled {}", shown(label)),
        None => outln!("\n{}", file.display()),
    }
    out!("{}", seen.unwrap_or_default());
    for (class, probability) in top {
        let mark = if Some(class) == label { "<- label" } else { "" };
        outln!("  {:5.1}%  {:<16} {mark}", 100. * probability, shown(class));
    }
    Ok(())
}
