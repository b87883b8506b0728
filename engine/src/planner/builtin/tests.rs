//! The built-in planner on small catalogues of services.

use serde_json::{Value, json};

use super::*;
use crate::plan::Parameter;

/// A service whose inputs and outputs are written as `name: type, name?: type`.
fn service(name: &str, description: &str, input: &str, output: &str) -> Service {
    Service {
        id: format!("s_{}", name.replace('-', "")),
        name: name.into(),
        description: description.into(),
        input_schema: schema(input).into(),
        output_schema: schema(output),
        revertible: false,
    }
}

fn schema(fields: &str) -> Value {
    let (mut properties, mut required) = (serde_json::Map::new(), Vec::new());
    for field in fields.split(", ").filter(|field| !field.is_empty()) {
        let (name, kind) = field.split_once(": ").unwrap();
        if !name.ends_with('?') {
            required.push(name);
        }
        let kind = match kind.split_once('|') {
            Some(_) => json!({"enum": kind.split('|').collect::<Vec<_>>()}),
            None => json!({"type": kind}),
        };
        properties.insert(name.trim_end_matches('?').into(), kind);
    }
    json!({"type": "object", "properties": properties, "required": required})
}

fn data(fields: Value) -> Vec<Parameter> {
    let fields = fields.as_object().unwrap().clone();
    fields
        .into_iter()
        .map(|(field, value)| Parameter { field, value })
        .collect()
}

/// The plan as lines `task service {input}`, or why there is none.
fn check(action: &str, fields: Value, services: &[Service]) -> String {
    let data = data(fields);
    let mut reversed = services.to_vec();
    reversed.reverse();
    let answer = |services: &[Service]| {
        answer(PlanRequest {
            action,
            data: &data,
            services,
            grounding: None,
            feedback: None,
            attempt: 1,
        })
    };
    let found = answer(services);
    assert_eq!(
        found,
        answer(&reversed),
        "the order of services changes the answer"
    );
    match found {
        Answer::Planned(plan) => {
            let line = |task: &crate::plan::PlanTask| {
                format!(
                    "{} {} {}",
                    task.id,
                    task.service_name,
                    Value::Object(task.input.clone())
                        .to_string()
                        .replace('"', "")
                )
            };
            plan.tasks.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        Answer::NotActionable(reason) => format!("no: {reason}"),
    }
}

fn echo() -> Vec<Service> {
    vec![
        service(
            "echo",
            "Echoes a message back",
            "message: string",
            "message: string",
        ),
        service(
            "echo-reverse",
            "Reverses a message and echoes it",
            "message: string",
            "message: string",
        ),
        service(
            "weather",
            "Tells the weather of a city",
            "city: string",
            "message: string, temperature: number",
        ),
    ]
}

fn shop() -> Vec<Service> {
    vec![
        service(
            "inventory",
            "Reserves products in the warehouse",
            "productId: string, quantity: integer",
            "reservationId: string, total: number, status: string",
        ),
        service(
            "payment",
            "Charges the customer",
            "customerId: string, amount: number",
            "paymentId: string, status: string",
        ),
        service(
            "refund",
            "Refunds a payment of an order to the customer",
            "paymentId: string",
            "refundId: string",
        ),
        service(
            "delivery-agent",
            "Delivers reserved products to the customer",
            "reservationId: string, customerId: string, priority?: low|high, paymentId?: string",
            "trackingCode: string, status: string",
        ),
    ]
}

#[test]
fn one_service_is_called_by_its_verb() {
    for action in [
        "Echo this message",
        "echo it, please",
        "Could you repeat the message?",
        "Send back an echo of this message",
    ] {
        assert_eq!(
            check(action, json!({"message": "hi"}), &echo()),
            "task1 echo {message:$task0.message}",
            "{action}"
        );
    }
    assert_eq!(
        check("Reverse this message", json!({"message": "hi"}), &echo()),
        "task1 echo-reverse {message:$task0.message}"
    );
    assert_eq!(
        check(
            "How is the weather there?",
            json!({"city": "Bern"}),
            &echo()
        ),
        "task1 weather {city:$task0.city}"
    );
}

#[test]
fn names_of_data_need_not_be_the_same() {
    for name in ["Message", "the-message", "text", "msg", "anything"] {
        let planned = check("Echo this", json!({ name: "hi" }), &echo());
        assert!(
            planned.starts_with("task1 echo {message:$task0"),
            "{name}: {planned}"
        );
    }
    assert_eq!(
        check("Echo \"good morning\"", json!({}), &echo()),
        "task1 echo {message:good morning}"
    );
    assert_eq!(
        check("Echo \"$task1.x\"", json!({}), &echo()),
        "task1 echo {message:$$task1.x}"
    );
}

#[test]
fn an_order_is_reserved_paid_and_delivered() {
    let expected = "task1 inventory {productId:$task0.productId,quantity:$task0.quantity}\n\
         task2 payment {customerId:$task0.customerId,amount:$task1.total}\n\
         task3 delivery-agent {reservationId:$task1.reservationId,customerId:$task0.customerId,paymentId:$task2.paymentId}";
    let action = "Order 2 of the blue lamp for customer c1 and deliver it";
    assert_eq!(
        check(
            action,
            json!({"productId": "lamp-blue", "quantity": 2, "customerId": "c1"}),
            &shop()
        ),
        expected
    );
    assert_eq!(
        check(
            action,
            json!({"product_id": "lamp-blue", "quantity": "2", "customer_id": "c1"}),
            &shop()
        ),
        expected
            .replace("task0.productId", "task0.product_id")
            .replace("task0.customerId", "task0.customer_id")
    );
    assert_eq!(
        check(
            action,
            json!({"productId": "lamp-blue", "customerId": "c1"}),
            &shop()
        ),
        expected.replace("$task0.quantity", "2")
    );
}

#[test]
fn what_is_missing_is_pulled_in_or_named() {
    assert_eq!(
        check(
            "Deliver with high priority",
            json!({"productId": "p", "quantity": 1, "customerId": "c"}),
            &shop()
        ),
        "task1 inventory {productId:$task0.productId,quantity:$task0.quantity}\n\
         task2 delivery-agent {reservationId:$task1.reservationId,customerId:$task0.customerId}"
    );
    assert_eq!(
        check(
            "Deliver the lamp",
            json!({"customerId": "c", "quantity": 1}),
            &shop()
        ),
        "no: `delivery-agent` needs `reservationId` (string), which `inventory` could give, but `inventory` needs `productId` (string), \
         and neither the data nor another service gives it"
    );
    assert_eq!(
        check(
            "Charge the customer",
            json!({"customerId": "c"}),
            &shop()[1..]
        ),
        "no: `payment` needs `amount` (number), and neither the data nor another service gives it"
    );
    assert_eq!(
        check(
            "Charge the customer",
            json!({"customerId": "c", "amount": ["much", "money"]}),
            &shop()[1..]
        ),
        "no: `payment` needs `amount` (number), and what the data has of that name does not fit: [\"much\",\"money\"] (array)"
    );
    assert_eq!(
        check(
            "Echo this",
            json!({"message": "m", "colour": "red"}),
            &echo()
        ),
        "no: no service that the action asks for takes the value `colour` of the data"
    );
}

#[test]
fn no_service_no_plan() {
    assert_eq!(
        check("Echo this", json!({}), &[]),
        "no: no service is registered"
    );
    assert_eq!(
        check("Paint the fence", json!({}), &echo()),
        "no: no registered service fits the action; there are echo, echo-reverse, weather"
    );
    assert!(check("", json!({}), &echo()).starts_with("no: no registered service fits"));
}

#[test]
fn a_chain_is_wired_backwards() {
    let services = [
        service(
            "customer-svc",
            "Fetches customer details",
            "email: string",
            "id: string, shippingAddress: string",
        ),
        service(
            "estimator",
            "Estimates delivery times",
            "customerId: string, address: string, productId: string",
            "days: integer",
        ),
        service(
            "catalog",
            "Finds products by their title",
            "title: string",
            "productId: string, price: number",
        ),
        service(
            "spammer",
            "Sends advertisements",
            "email: string",
            "sent: boolean",
        ),
    ];
    assert_eq!(
        check(
            "Estimate when I can have it",
            json!({"email": "a@b.c", "title": "Blue lamp"}),
            &services
        ),
        "task1 customer-svc {email:$task0.email}\n\
         task2 catalog {title:$task0.title}\n\
         task3 estimator {customerId:$task1.id,address:$task1.shippingAddress,productId:$task2.productId}"
    );
}

#[test]
fn services_that_need_each_other_are_no_plan() {
    let services = [
        service("hen", "Lays eggs", "egg: string", "hen: string"),
        service("nest", "Hatches a hen", "hen: string", "egg: string"),
    ];
    assert!(
        check("Hatch a hen", json!({}), &services)
            .starts_with("no: `nest` needs `hen` (string), which `hen` could give, but")
    );
}

#[test]
fn a_common_name_pulls_nothing_in() {
    let services = [
        service(
            "notifier",
            "Notifies somebody",
            "status: string",
            "ok: boolean",
        ),
        shop().remove(1),
    ];
    assert!(check("Notify me", json!({"customerId": "c"}), &services).starts_with("no: "));
}

#[test]
fn enums_objects_and_the_action_itself_fill_inputs() {
    let translate = service(
        "translator",
        "Translates a text",
        "text: string, language: french|german",
        "text: string",
    );
    assert_eq!(
        check(
            "Translate this to German",
            json!({"text": "hi"}),
            std::slice::from_ref(&translate)
        ),
        "task1 translator {text:$task0.text,language:german}"
    );
    let mut courier = service(
        "courier",
        "Ships parcels",
        "parcelId: string",
        "ok: boolean",
    );
    courier.input_schema["properties"]["address"] =
        schema("street: string, city: string, floor?: integer");
    courier.input_schema["required"] = json!(["parcelId", "address"]);
    assert_eq!(
        check(
            "Ship the parcel",
            json!({"street": "Main 1", "city": "Bern", "parcelId": "p1", "floor": 3}),
            &[courier]
        ),
        "task1 courier {parcelId:$task0.parcelId,address:{street:$task0.street,city:$task0.city,floor:$task0.floor}}"
    );
    let researcher = service(
        "researcher",
        "Researches a topic in depth",
        "question: string, style?: string",
        "report: string",
    );
    assert_eq!(
        check("Research tides", json!({"style": "short"}), &[researcher]),
        "task1 researcher {question:Research tides,style:$task0.style}"
    );
}

#[test]
fn nested_outputs_are_found() {
    let mut orders = service("orders", "Places an order", "sku: string", "note: string");
    orders.output_schema["properties"]["order"] = schema("orderId: string");
    let services = [
        orders,
        service(
            "tracker",
            "Tracks an order",
            "orderId: string",
            "state: string",
        ),
    ];
    assert_eq!(
        check("Order it and track it", json!({"sku": "x"}), &services),
        "task1 orders {sku:$task0.sku}\ntask2 tracker {orderId:$task1.order.orderId}"
    );
}

#[test]
fn a_parameter_of_another_meaning_is_no_answer() {
    let lookup = service(
        "product-lookup",
        "Looks up a product",
        "productId: string",
        "title: string",
    );
    assert!(
        check(
            "Look up the product",
            json!({"customerId": "c"}),
            std::slice::from_ref(&lookup)
        )
        .starts_with("no: ")
    );
    assert_eq!(
        check("Look up the product", json!({"id": "p"}), &[lookup]),
        "task1 product-lookup {productId:$task0.id}"
    );
    let asker = service(
        "researcher",
        "Researches a topic in depth",
        "question: string",
        "report: string",
    );
    assert_eq!(
        check("Research this", json!({"topic": "tides"}), &[asker]),
        "task1 researcher {question:$task0.topic}"
    );
    let mut ship = service(
        "shipper",
        "Ships a parcel",
        "address: string",
        "ok: boolean",
    );
    let two = json!({"homeAddress": "a", "billingAddress": "b"});
    assert!(
        check("Ship it", two, std::slice::from_ref(&ship))
            .starts_with("no: `shipper` needs `address` (string)")
    );
    ship.input_schema["properties"]["address"] = json!({"type": "object"});
    assert!(
        check("Ship it", json!({"address": "Main 1"}), &[ship])
            .starts_with("no: `shipper` needs `address` (object)")
    );
}

#[test]
fn schemas_of_pydantic_are_read() {
    let mut reserve = service(
        "inventory",
        "Manages the stock: checks and reserves items",
        "sku: string",
        "",
    );
    *reserve.input_schema = json!({
        "$defs": {"Level": {"enum": ["economy", "express"], "title": "Level", "type": "string"},
                  "Line": {"type": "object", "title": "Line", "required": ["sku", "quantity"],
                           "properties": {"sku": {"type": "string", "title": "Sku"}, "quantity": {"type": "integer", "title": "Quantity"}}}},
        "properties": {"line": {"$ref": "#/$defs/Line"}, "level": {"$ref": "#/$defs/Level", "default": "economy"},
                       "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null}},
        "required": ["line", "level"], "title": "ReserveInput", "type": "object"
    });
    let fields = json!({"sku": "lamp", "quantity": "2", "note": null});
    assert_eq!(
        check(
            "Reserve two lamps by express",
            fields.clone(),
            std::slice::from_ref(&reserve)
        ),
        "task1 inventory {line:{sku:$task0.sku,quantity:$task0.quantity},level:express,note:$task0.note}"
    );
    assert_eq!(
        check("Reserve two lamps", fields, &[reserve]),
        "task1 inventory {line:{sku:$task0.sku,quantity:$task0.quantity},level:economy,note:$task0.note}"
    );
}

#[test]
fn a_result_goes_on_where_nothing_else_fits() {
    let services = [
        service(
            "summarizer",
            "Summarizes long texts",
            "text: string",
            "summary: string, words: integer",
        ),
        service(
            "mailer",
            "Sends an email to a recipient",
            "to: string, subject?: string, body: string",
            "messageId: string",
        ),
    ];
    assert_eq!(
        check(
            "Summarize the report and mail it to Bob",
            json!({"text": "x", "recipient": "b@x"}),
            &services
        ),
        "task1 summarizer {text:$task0.text}\ntask2 mailer {to:$task0.recipient,body:$task1.summary}"
    );
    assert_eq!(
        check(
            "Send an email",
            json!({"to": "b@x", "message": "hi", "subject": "s"}),
            &services
        ),
        "task1 mailer {to:$task0.to,body:$task0.message,subject:$task0.subject}"
    );
}

#[test]
fn relative_clauses_say_which_and_not_what_to_do() {
    let services = [
        service(
            "customer-service",
            "Finds customers and their address",
            "customerId: string",
            "id: string, address: string",
        ),
        service(
            "stock",
            "Checks the stock of products",
            "productId: string",
            "warehouseAddress: string",
        ),
        service(
            "delivery",
            "Estimates delivery times",
            "customerAddress: string, warehouseAddress: string",
            "days: integer",
        ),
        service(
            "payment",
            "Charges a card",
            "amount: number",
            "receipt: string",
        ),
    ];
    let expected = "task1 customer-service {customerId:$task0.customerId}\n\
         task2 stock {productId:$task0.productId}\n\
         task3 delivery {customerAddress:$task1.address,warehouseAddress:$task2.warehouseAddress}";
    for action in [
        "Estimate delivery for the customer who ordered a product",
        "I like this product: when would I receive it?",
    ] {
        assert_eq!(
            check(
                action,
                json!({"customerId": "c", "productId": "p"}),
                &services
            ),
            expected,
            "{action}"
        );
    }
}

#[test]
fn many_services_are_searched_quickly() {
    let services: Vec<_> = (0..300)
        .map(|n| {
            service(
                &format!("step-{n}"),
                "Does a step",
                &format!("value{}: string", n + 1),
                &format!("value{n}: string"),
            )
        })
        .collect();
    let planned = check("Run step-0", json!({"value9": "x"}), &services);
    assert!(
        planned.starts_with("no: ") || planned.lines().count() == 9,
        "{planned}"
    );
}
