//! What a network makes of held-out images: which classes it takes for which, its worst and its best images.

use maud::{Markup, html};

use super::{png, table};
use crate::backend::Backend;
use crate::data::bitmap::Bitmap;
use crate::data::{DataSet, ImageSet};
use crate::error::{Error, Result};
use crate::text::{percent, short, shortened};
use crate::train::session::{Session, softmax};

/// Images shown of the worst and of the best.
const SHOWN: usize = 12;
/// Classes whose confusions are shown as a matrix, at most.
const MATRIX: usize = 20;
/// Rows and columns of an embedded image, at most.
const PIXELS: u32 = 96;

/// The results of the held-out images that were looked at.
pub struct HeldOut {
    /// The checkpoint's step.
    pub step: u64,
    /// Images of the set, of which some were looked at.
    pub of: usize,
    /// Class names by label.
    pub classes: Vec<String>,
    /// The result of each.
    pub verdicts: Vec<Verdict>,
    /// The worst and the best, with their pictures.
    pub worst: Vec<Shown>,
    /// As `worst`.
    pub best: Vec<Shown>,
}

/// The result of an image.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Its number in the set.
    pub image: u32,
    /// Its class.
    pub label: usize,
    /// The most probable class.
    pub predicted: usize,
    /// The most probable class's probability.
    pub probability: f64,
    /// Its own class's probability.
    pub of_label: f64,
    /// Classes that are more probable than its own.
    pub above: usize,
}

/// An image to be shown.
pub struct Shown {
    verdict: Verdict,
    png: Vec<u8>,
    size: u32,
}

/// Runs `count` held-out images, evenly from all of them (sets are often sorted by class), through a session's network.
///
/// Fails where an image cannot be read, and where the data has classes that the network has not.
pub fn look<B: Backend>(session: &mut Session<B>, count: usize) -> Result<HeldOut> {
    let of = session.data().held_out.len();
    let batch_size = session.recipe().train.batch_size.max(1);
    let count = count.min(of);
    let numbers: Vec<u32> = (0..count).map(|number| (number * of / count) as u32).collect();
    let mut verdicts = Vec::with_capacity(numbers.len());
    for numbers in numbers.chunks(batch_size) {
        let mut batch = session.input().batch(&session.data().held_out, numbers, None)?;
        // The labels are compared here; the network must not meet one that it has no class for.
        let labels = std::mem::replace(&mut batch.labels, vec![0; numbers.len()]);
        session.pair().evaluate(&batch)?;
        let rows = session.pair().logits(numbers.len())?;
        for ((&image, label), logits) in numbers.iter().zip(labels).zip(rows) {
            verdicts.push(verdict(image, label as usize, &softmax(&logits))?);
        }
    }
    let mut by_probability = verdicts.clone();
    by_probability.sort_by(|a, b| a.of_label.total_cmp(&b.of_label));
    let wrong = by_probability.iter().filter(|verdict| verdict.above > 0).take(SHOWN);
    let right = by_probability.iter().rev().filter(|verdict| verdict.above == 0).take(SHOWN);
    let DataSet { held_out, classes, .. } = session.data();
    Ok(HeldOut {
        step: session.step(),
        of,
        classes: classes.clone(),
        worst: wrong.map(|verdict| Shown::new(held_out, verdict)).collect::<Result<_>>()?,
        best: right.map(|verdict| Shown::new(held_out, verdict)).collect::<Result<_>>()?,
        verdicts,
    })
}

fn verdict(image: u32, label: usize, probabilities: &[f64]) -> Result<Verdict> {
    let Some(&of_label) = probabilities.get(label) else {
        let problem = format!("an image of class {label}; the network has {} classes", probabilities.len());
        return Err(Error::data("held-out images", problem));
    };
    let best = probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    let (predicted, &probability) = best.unwrap_or((label, &of_label));
    // As the devices count: on a tie the lower class ranks higher.
    let higher = |(class, p): (usize, &f64)| *p > of_label || (*p == of_label && class < label);
    let above = probabilities.iter().enumerate().filter(|&row| higher(row)).count();
    Ok(Verdict { image, label, predicted, probability, of_label, above })
}

impl Shown {
    fn new(set: &ImageSet, verdict: &Verdict) -> Result<Shown> {
        let planes = set.image(verdict.image as usize)?;
        let (width, height, area) = (set.width as u32, set.height as u32, set.width * set.height);
        let wrong = || Error::data("held-out images", format!("image {} cannot be shown", verdict.image));
        let values = (0..area).flat_map(|at| (0..set.channels).map(move |c| c * area + at)).map(|at| planes[at]);
        let image = Bitmap { size: [width, height], channels: set.channels, values: values.collect() };
        let png = image.within(PIXELS).and_then(|image| image.png()).map_err(|_| wrong())?;
        Ok(Shown { verdict: *verdict, png, size: width.max(height) })
    }
}

impl HeldOut {
    fn class(&self, number: usize) -> String {
        self.classes.get(number).cloned().unwrap_or_else(|| format!("class {number}"))
    }

    /// The part of the page.
    pub fn section(&self) -> Markup {
        let count = self.verdicts.len();
        if count == 0 {
            return html! { p.none { "The set has no held-out images." } };
        }
        let error = |rank: usize| {
            percent(self.verdicts.iter().filter(|verdict| verdict.above >= rank).count() as f64 / count as f64)
        };
        html! {
            p {
                @if count == self.of { "All " (count) } @else { (count) " of " (self.of) }
                " held-out images by the checkpoint of step " (self.step) ", on the CPU: top-1 error " (error(1))
                ", top-5 error " (error(5)) "."
            }
            @if self.classes.len() <= MATRIX {
                div.beside { div { (self.matrix()) } div { (self.largest_confusions(MATRIX / 2)) } }
            } @else {
                (self.largest_confusions(MATRIX))
            }
            (self.gallery("The worst", "Wrong, and the label the least probable.", &self.worst))
            (self.gallery("The best", "Right, and the label the most probable.", &self.best))
        }
    }

    fn gallery(&self, title: &str, about: &str, shown: &[Shown]) -> Markup {
        html! {
            @if !shown.is_empty() {
                h3 { (title) }
                p { (about) }
                div.gallery { @for shown in shown { (self.figure(shown)) } }
            }
        }
    }

    fn figure(&self, Shown { verdict, png, size }: &Shown) -> Markup {
        let smooth = (*size > PIXELS).then_some("smooth");
        let (label, predicted) = (self.class(verdict.label), self.class(verdict.predicted));
        html! {
            figure title={ "held-out image " (verdict.image) } {
                img class=[smooth] src=(png::address(png)) alt=(label);
                figcaption {
                    b { (shortened(&label, 40)) } " " (probability(verdict.of_label))
                    @if verdict.above > 0 {
                        br; "taken for " (shortened(&predicted, 40)) " " (probability(verdict.probability))
                    }
                }
            }
        }
    }

    /// The number of images of each class that were taken for each.
    fn counts(&self) -> Vec<Vec<usize>> {
        let most = self.verdicts.iter().map(|verdict| verdict.label.max(verdict.predicted) + 1).max().unwrap_or(0);
        let classes = self.classes.len().max(most);
        let mut counts = vec![vec![0; classes]; classes];
        self.verdicts.iter().for_each(|verdict| counts[verdict.label][verdict.predicted] += 1);
        counts
    }

    fn matrix(&self) -> Markup {
        let counts = self.counts();
        html! {
            h3 { "Confusion matrix" }
            p { "Rows are labels, columns are what the network said; shades are shares of the row." }
            div.scroll {
                table.matrix {
                    thead {
                        tr {
                            th {}
                            @for class in 0..counts.len() { th { span { (shortened(&self.class(class), 18)) } } }
                            th { span { "error" } }
                        }
                    }
                    tbody { @for (label, row) in counts.iter().enumerate() { (self.matrix_row(label, row)) } }
                }
            }
        }
    }

    fn matrix_row(&self, label: usize, row: &[usize]) -> Markup {
        let all: usize = row.iter().sum();
        let share = |count: usize| count as f64 / all.max(1) as f64;
        let shade = |count: usize| format!("--s:{:.0}%", (100. * share(count)).max(4.));
        html! {
            tr {
                th { (shortened(&self.class(label), 18)) }
                @for (class, &count) in row.iter().enumerate() {
                    @if count == 0 { td {} } @else {
                        td.right[class == label].wrong[class != label].strong[share(count) > 0.55] style=(shade(count))
                            title={ (count) " of " (all) " " (self.class(label)) ": " (self.class(class)) } { (count) }
                    }
                }
                td.sum { @if all == 0 { "–" } @else { (format_args!("{:.0}%", 100. * (1. - share(row[label])))) } }
            }
        }
    }

    fn largest_confusions(&self, most: usize) -> Markup {
        let counts = self.counts();
        let mut pairs: Vec<(usize, usize, usize)> = Vec::new();
        for (label, row) in counts.iter().enumerate() {
            let wrong = row.iter().enumerate().filter(|&(class, &count)| class != label && count > 0);
            pairs.extend(wrong.map(|(class, &count)| (count, label, class)));
        }
        pairs.sort_by_key(|&(count, label, class)| (usize::MAX - count, label, class));
        if pairs.is_empty() {
            return html! { p { "No image was taken for another class." } };
        }
        let row = |&(count, label, class): &(usize, usize, usize)| {
            let all: usize = counts[label].iter().sum();
            let name = |class| shortened(&self.class(class), 40);
            [html! { (name(label)) }, html! { (name(class)) }, html! { (count) " of " (all) }]
        };
        html! {
            h3 { "The largest confusions" }
            (table("", &["label", "taken for", "images"], pairs.iter().take(most).map(row)))
        }
    }
}

fn probability(value: f64) -> String {
    match value {
        p if p >= 0.0005 => format!("{:.1}%", 100. * p),
        p => format!("{}%", short(100. * p)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_ranks_ties_as_the_devices_do() {
        let seen = verdict(3, 2, &[0.1, 0.4, 0.4, 0.1]).unwrap();
        assert_eq!((seen.predicted, seen.above, seen.label), (1, 1, 2));
        let seen = verdict(3, 1, &[0.1, 0.4, 0.4, 0.1]).unwrap();
        assert_eq!((seen.predicted, seen.above), (1, 0));
        assert!(verdict(0, 4, &[0.5, 0.5]).unwrap_err().to_string().contains("the network has 2 classes"));
    }

    fn held_out(classes: usize) -> HeldOut {
        let of = |label, predicted, image| Verdict {
            image,
            label,
            predicted,
            probability: 0.9,
            of_label: 0.1,
            above: usize::from(label != predicted),
        };
        let verdicts = vec![of(0, 0, 0), of(0, 1, 1), of(0, 1, 2), of(1, 1, 3), of(1, 0, 4)];
        let classes = (0..classes).map(|class| format!("<{class}>")).collect();
        HeldOut { step: 7, of: 9, classes, verdicts, worst: Vec::new(), best: Vec::new() }
    }

    #[test]
    fn few_classes_give_a_matrix_and_many_a_table() {
        let few = held_out(3).section().into_string();
        assert!(few.contains("<p>5 of 9") && few.contains("top-1 error 60.0%"), "{few}");
        assert!(few.contains("2 of 3 &lt;0&gt;: &lt;1&gt;\">2</td>") && few.contains("67%"), "{few}");
        let many = held_out(30).section().into_string();
        assert!(many.contains("<td>&lt;0&gt;</td><td>&lt;1&gt;</td><td>2 of 3</td>"), "{many}");
    }
}
