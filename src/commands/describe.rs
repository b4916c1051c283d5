//! `describe`: the network as a table.

use alexnet_split::error::Result;
use alexnet_split::net::describe;
use alexnet_split::net::spec::Net;

use crate::cli::DescribeArgs;

pub fn describe(args: &DescribeArgs) -> Result<()> {
    let recipe = super::recipe(&args.recipe, "paper")?;
    if args.toml {
        print!("{}", recipe.to_toml());
        return Ok(());
    }
    let net = Net::from_options(&recipe.net)?;
    let facts = describe::describe(&net, recipe.train.batch_size, recipe.state_names().len())?;
    if args.json {
        println!("{}", serde_json::json!({"recipe": recipe.name, "network": facts}));
    } else {
        println!("recipe {}", recipe.name);
        print!("{}", describe::render(&facts));
    }
    Ok(())
}
