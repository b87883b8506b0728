//! What is done once every required input is filled: optional inputs, parameters without a use, and the inputs as a plan has them.

use serde_json::{Map, Value};

use super::{Filling, Node, Slot, Wiring, single_best};
use crate::plan::Parameter;
use crate::plan::reference::{Reference, Segment, TASK_ZERO};
use crate::plan::schema::Schema;
use crate::planner::builtin::words::{is_generic, likeness, same_stems, stems_of_name};

impl<'a> Wiring<'a> {
    /// Fills optional inputs: with parameters of their name, and with values of their name that services before return.
    pub(in crate::planner::builtin) fn fill_optional(&mut self) {
        for at in 0..self.nodes.len() {
            for (name, schema) in self.empty_inputs(at) {
                let slot = Slot {
                    service: self.nodes[at].service,
                    member: name,
                    name,
                    schema,
                    depth: 0,
                };
                let stems = stems_of_name(name);
                let filling = self
                    .parameter(slot, &|parameter| parameter == name)
                    .or_else(|| {
                        self.parameter(slot, &|parameter| {
                            same_stems(&stems_of_name(parameter), &stems)
                        })
                    })
                    .or_else(|| self.earlier_output(slot, at));
                if let Some(filling) = filling {
                    self.nodes[at].inputs.push((name.to_owned(), filling));
                }
            }
        }
    }

    fn earlier_output(&self, slot: Slot<'a>, at: usize) -> Option<Filling> {
        if stems_of_name(slot.name).iter().all(|stem| is_generic(stem)) {
            return None;
        }
        let wanted = slot.schema.any_of();
        self.nodes[..at].iter().find_map(|node| {
            let outputs = &self.profiles[node.service].outputs;
            let output = outputs
                .iter()
                .find(|output| output.name == slot.name && output.schema.overlaps(&wanted))?;
            Some(Filling::Output {
                service: node.service,
                path: output.path.clone(),
            })
        })
    }

    fn empty_inputs(&self, at: usize) -> Vec<(&'a str, Schema<'a>)> {
        let node = &self.nodes[at];
        let properties =
            Schema::root(&self.profiles[node.service].service.input_schema).properties();
        properties
            .into_iter()
            .filter(|(name, _)| !node.inputs.iter().any(|(filled, _)| filled == name))
            .collect()
    }

    /// Finds a use for parameters that have none: a further service that the action speaks of, or an optional input of a name that is
    /// alike. Gives those that remain.
    pub(in crate::planner::builtin) fn use_rest(&mut self) -> Vec<&'a str> {
        for parameter in self.data {
            if self.used().contains(&parameter.field) {
                continue;
            }
            let stems = stems_of_name(&parameter.field);
            let mut takers: Vec<_> = (0..self.profiles.len())
                .filter(|&at| self.scores[at] > 0.0 && self.has_input(at, parameter))
                .collect();
            takers.sort_by(|&a, &b| self.scores[b].total_cmp(&self.scores[a]).then(a.cmp(&b)));
            for taker in takers {
                if !self.nodes.iter().any(|node| node.service == taker) && self.add(taker).is_ok() {
                    self.fill_optional();
                    break;
                }
            }
            if self.used().contains(&parameter.field) {
                continue;
            }
            let slots: Vec<_> = (0..self.nodes.len())
                .flat_map(|at| {
                    self.empty_inputs(at)
                        .into_iter()
                        .map(move |(name, schema)| (at, name, schema))
                })
                .filter(|(at, name, _)| {
                    self.profiles[self.nodes[*at].service].takes(name, &parameter.value)
                })
                .collect();
            let best = single_best(slots.iter(), |(_, name, _)| {
                likeness(&stems, &stems_of_name(name))
            });
            if let Some((at, name, _)) = best {
                let filling = Filling::Parameter(parameter.field.clone());
                self.nodes[*at].inputs.push(((*name).to_owned(), filling));
            }
        }
        let used = self.used();
        self.data
            .iter()
            .map(|parameter| parameter.field.as_str())
            .filter(|field| !used.contains(*field))
            .collect()
    }

    fn has_input(&self, service: usize, parameter: &Parameter) -> bool {
        let profile = &self.profiles[service];
        let stems = stems_of_name(&parameter.field);
        Schema::root(&profile.service.input_schema)
            .properties()
            .into_iter()
            .any(|(name, _)| {
                (name == parameter.field || same_stems(&stems_of_name(name), &stems))
                    && profile.takes(name, &parameter.value)
            })
    }

    /// The services in an order in which they can run, each with its input; `id` names the task of a service.
    pub(in crate::planner::builtin) fn into_inputs(
        self,
        id: &dyn Fn(usize) -> String,
    ) -> Vec<(usize, Map<String, Value>)> {
        let position = |service: usize| {
            self.nodes
                .iter()
                .position(|node| node.service == service)
                .unwrap_or(0)
        };
        let input = |node: &Node| -> Map<String, Value> {
            node.inputs
                .iter()
                .map(|(name, filling)| (name.clone(), written(filling, &position, id)))
                .collect()
        };
        self.nodes
            .iter()
            .map(|node| (node.service, input(node)))
            .collect()
    }
}

fn written(
    filling: &Filling,
    position: &dyn Fn(usize) -> usize,
    id: &dyn Fn(usize) -> String,
) -> Value {
    let refer =
        |task: String, path: Vec<Segment>| Value::String(Reference { task, path }.to_string());
    match filling {
        Filling::Parameter(field) => {
            refer(TASK_ZERO.to_owned(), vec![Segment::Field(field.clone())])
        }
        Filling::Output { service, path } => refer(id(position(*service)), path.clone()),
        Filling::Literal(value) => value.clone(),
        Filling::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, filling)| (name.clone(), written(filling, position, id)))
                .collect(),
        ),
    }
}
