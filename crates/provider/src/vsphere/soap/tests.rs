use proptest::prelude::*;

use super::*;

#[test]
fn an_element_has_two_kinds_of_type() {
    let element = Element::parse(
        "<?xml version='1.0'?>\n<a:val xmlns:a='urn:vim25' xmlns:xsi='x' xsi:type='a:ManagedObjectReference' \
         type=\"VirtualMachine\"> vm-1 </a:val>",
    )
    .unwrap();
    assert_eq!(element.name(), "val");
    assert_eq!(element.schema_type(), Some("ManagedObjectReference"));
    assert_eq!(element.moref(), Some(Moref::vm("vm-1")));
    let prefixed = Element::parse("<v XMLSchema-instance:type=\"InvalidLogin\"/>").unwrap();
    assert_eq!(prefixed.schema_type(), Some("InvalidLogin"));
    assert_eq!(prefixed.moref(), None);
}

#[test]
fn text_is_unescaped_once() {
    let element =
        Element::parse("<a>\n <b>a &lt;b&gt; &amp;amp; &#x63;<![CDATA[<d>]]></b><c/><n>-7</n><f>1</f></a>").unwrap();
    assert_eq!(element.text_at("b"), Some("a <b> &amp; c<d>"));
    assert_eq!(element.text_at("c"), None);
    assert_eq!(element.number_at("n"), Some(-7));
    assert_eq!(element.flag_at("f"), Some(true));
    assert_eq!(element.flag_at("n"), None);
}

#[test]
fn what_no_server_sends_is_refused() {
    let deep = "<a>".repeat(300);
    let many = format!("<a>{}</a>", "<b/>".repeat(400_001));
    for text in [
        "",
        "x",
        "<a>",
        "<a></b>",
        "<!DOCTYPE a><a/>",
        "<a>&x;</a>",
        "<a>&#0;</a>",
        deep.as_str(),
        many.as_str(),
    ] {
        assert!(Element::parse(text).is_err(), "{}", &text[..text.len().min(40)]);
    }
}

#[test]
fn a_request_is_what_the_documentation_shows() {
    let this = Moref::new("SearchIndex", "SearchIndex");
    let sent = envelope(
        &this,
        "FindByInventoryPath",
        &[
            Arg::text("inventoryPath", "DC/vm/a <&\"'> b"),
            Arg::typed("spec", "VirtualMachineImportSpec", [Arg::text("n", 4_u32)]),
            Arg::any("v", "xsd:string", "x"),
        ],
    )
    .unwrap();
    let inner = sent.split_once("<soapenv:Body>").unwrap().1;
    assert_eq!(
        inner,
        "<FindByInventoryPath xmlns=\"urn:vim25\"><_this type=\"SearchIndex\">SearchIndex</_this>\
         <inventoryPath>DC/vm/a &lt;&amp;&quot;&apos;&gt; b</inventoryPath>\
         <spec xsi:type=\"VirtualMachineImportSpec\"><n>4</n></spec><v xsi:type=\"xsd:string\">x</v>\
         </FindByInventoryPath></soapenv:Body></soapenv:Envelope>"
    );
    assert!(envelope(&this, "M", &[Arg::text("a", "\u{1}")]).is_err());
}

fn fault(text: &str) -> VimFault {
    match body(text).unwrap() {
        Body::Fault(fault) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn faults_say_their_type_in_three_ways() {
    let by_schema = fault(
        "<soapenv:Envelope xmlns:soapenv='s'><soapenv:Body><soapenv:Fault><faultcode>ServerFaultCode</faultcode>\
         <faultstring>Permission to perform this operation was denied.</faultstring><detail>\
         <NoPermissionFault xmlns='urn:vim25' xsi:type='NoPermission'><object type='VirtualMachine'>vm-7</object>\
         <privilegeId>VApp.Export</privilegeId></NoPermissionFault></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>",
    );
    assert!(by_schema.is("NoPermission"));
    assert_eq!(by_schema.object, Some(Moref::vm("vm-7")));
    assert_eq!(by_schema.privileges, ["VApp.Export"]);
    let by_name = fault(
        "<Envelope><Body><Fault><faultstring/><faultcode>ServerFaultCode</faultcode><detail><InvalidLoginFault/>\
         </detail></Fault></Body></Envelope>",
    );
    assert!(by_name.is("InvalidLogin"));
    assert_eq!(by_name.message, "ServerFaultCode");
    let bare =
        fault("<Envelope><Body><Fault><faultstring>Unexpected element tag</faultstring></Fault></Body></Envelope>");
    assert_eq!(
        (bare.name.as_str(), bare.message.as_str()),
        ("", "Unexpected element tag")
    );
}

#[test]
fn newer_servers_name_all_missing_privileges() {
    let fault = fault(
        "<Envelope><Body><Fault><faultstring>Denied.</faultstring><detail><NoPermissionFault><object type='Folder'>group-d1\
         </object><privilegeId>A.B</privilegeId><missingPrivileges><entity type='Folder'>group-d1</entity><privilegeIds>A.B\
         </privilegeIds><privilegeIds>C.D</privilegeIds></missingPrivileges></NoPermissionFault></detail></Fault></Body>\
         </Envelope>",
    );
    assert_eq!(fault.privileges, ["A.B", "C.D"]);
}

#[test]
fn a_tasks_error_keeps_the_cause() {
    let error = Element::parse(
        "<error><fault xsi:type='ApplicationQuiesceFault'><faultMessage><key>k</key><message>Failed to quiesce.</message>\
         </faultMessage></fault><localizedMessage>An error occurred while saving the snapshot.</localizedMessage></error>",
    )
    .unwrap();
    let fault = VimFault::of_localized(&error);
    assert!(fault.is("ApplicationQuiesceFault"));
    assert_eq!(
        fault.message,
        "An error occurred while saving the snapshot (Failed to quiesce.)"
    );
}

#[test]
fn what_is_no_soap_is_told_apart() {
    assert_eq!(
        body("<html><body>503</body></html>").unwrap(),
        Body::Other("html".to_owned())
    );
    assert!(matches!(
        body("<Envelope><Body/></Envelope>").unwrap(),
        Body::Response(_)
    ));
}

proptest! {
    #[test]
    fn any_text_arrives_as_it_was(text in "[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\u{fffe}\u{ffff}]{0,40}") {
        let sent = envelope(&Moref::vm("v"), "M", &[Arg::text("a", &text)]).unwrap();
        let read = Element::parse(&sent).unwrap();
        prop_assert_eq!(read.at("Body/M/a").unwrap().text(), text.trim());
    }

    #[test]
    fn no_input_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = body(&text);
    }
}
