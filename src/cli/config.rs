//! `portlayer config dump`: every setting and where it came from.

use clap::{Args, Subcommand};
use portlayer_node::config::Setting;

use super::context::Context;
use super::failure::{Exit, Outcome};
use super::output::{Column, OutputArgs, Row};

/// Show the configuration
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Every setting with its value and where it came from: flag, environment, file or default
    Dump {
        #[command(flatten)]
        output: OutputArgs,
    },
}

impl Row for Setting {
    const COLUMNS: &'static [Column] = &[
        Column::new("KEY"),
        Column::new("VALUE").cut(),
        Column::new("ORIGIN"),
    ];

    fn cells(&self) -> Vec<Vec<u8>> {
        let value = match &self.value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        vec![
            self.key.into(),
            value.into(),
            self.origin.to_string().into(),
        ]
    }

    fn name(&self) -> String {
        self.key.to_owned()
    }
}

pub(crate) fn run(args: &ConfigArgs, context: &Context) -> Outcome {
    let Verb::Dump { output } = &args.verb;
    context.out(*output).list(&context.loaded().settings)?;
    Ok(Exit::OK)
}
