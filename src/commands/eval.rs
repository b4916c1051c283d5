//! `eval`: a run's newest checkpoint, measured on the held-out images.

use crate::backend::Backend;
use crate::error::Result;
use crate::text::counted;
use crate::train::session::Session;
use serde_json::json;

use super::on_run;
use crate::cli::{EvalArgs, Views};

pub fn eval(args: &EvalArgs) -> Result<()> {
    on_run!(&args.run, true, |session| eval_session(args, &mut session))
}

fn eval_session<B: Backend>(args: &EvalArgs, session: &mut Session<B>) -> Result<()> {
    let result = match args.views {
        Views::Centre => session.evaluate(&mut ())?,
        Views::Ten => Some(session.evaluate_ten_views(&mut ())?),
    };
    let Some(result) = result else { return Ok(()) };
    let step = session.step();
    if args.json {
        outln!(
            "{}",
            json!({"kind": "eval", "step": step, "images": result.images, "loss": result.loss(), "top1_error": result.top1_error(), "top5_error": result.top5_error()})
        );
    } else {
        outln!("step {step}: {}, loss {:.4}", counted(result.images, "held-out image[s]"), result.loss());
        outln!("top-1 accuracy {:.1}% (error {:.1}%)", 100. * (1. - result.top1_error()), 100. * result.top1_error());
        outln!("top-5 accuracy {:.1}% (error {:.1}%)", 100. * (1. - result.top5_error()), 100. * result.top5_error());
    }
    Ok(())
}
