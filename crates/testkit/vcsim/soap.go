package main

import (
	"bytes"
	"fmt"
	"net/http"
	"reflect"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// envelope is what an answer is in; soap.Envelope cannot have the prefixes that some clients insist on.
type envelope struct {
	XMLName xml.Name    `xml:"soapenv:Envelope"`
	Env     string      `xml:"xmlns:soapenv,attr"`
	XSD     string      `xml:"xmlns:xsd,attr"`
	XSI     string      `xml:"xmlns:xsi,attr"`
	Body    interface{} `xml:"soapenv:Body"`
}

// answer is the body of a call that succeeded.
type answer struct{ of interface{} }

func (a answer) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	name := reflect.TypeOf(a.of).Elem().Name()
	if started, ok := a.of.(*taskAnswer); ok {
		name = started.method + "Response"
	}
	inner := xml.StartElement{Name: xml.Name{Space: "urn:vim25", Local: name}}
	return within(e, start, func() error { return e.EncodeElement(a.of, inner) })
}

// refusal is the body of a call that failed.
type refusal struct{ fault *soap.Fault }

type refusalText struct {
	Code   string `xml:"faultcode"`
	String string `xml:"faultstring"`
	Detail detail `xml:"detail"`
}

type detail struct{ fault types.AnyType }

func (r refusal) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	text := refusalText{r.fault.Code, r.fault.String, detail{r.fault.Detail.Fault}}
	inner := xml.StartElement{Name: xml.Name{Local: "soapenv:Fault"}}
	return within(e, start, func() error { return e.EncodeElement(text, inner) })
}

func (d detail) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	kind := reflect.TypeOf(d.fault).Elem().Name()
	inner := xml.StartElement{Name: xml.Name{Local: kind + "Fault"}, Attr: []xml.Attr{
		{Name: xml.Name{Local: "xmlns"}, Value: "urn:vim25"},
		{Name: xml.Name{Local: "xsi:type"}, Value: kind},
	}}
	return within(e, start, func() error { return e.EncodeElement(d.fault, inner) })
}

func within(e *xml.Encoder, start xml.StartElement, content func() error) error {
	if err := e.EncodeToken(start); err != nil {
		return err
	}
	if err := content(); err != nil {
		return err
	}
	return e.EncodeToken(start.End())
}

// reply writes what a method gave.
func reply(w http.ResponseWriter, body soap.HasFault) {
	status, content := http.StatusOK, interface{}(nil)
	if fault := body.Fault(); fault != nil {
		status, content = http.StatusInternalServerError, refusal{fault}
	} else {
		content = answer{reflect.ValueOf(body).Elem().FieldByName("Res").Interface()}
	}
	var out bytes.Buffer
	fmt.Fprint(&out, xml.Header)
	err := xml.NewEncoder(&out).Encode(&envelope{
		Env:  "http://schemas.xmlsoap.org/soap/envelope/",
		XSD:  "http://www.w3.org/2001/XMLSchema",
		XSI:  "http://www.w3.org/2001/XMLSchema-instance",
		Body: content,
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes())
}

// failed is the body of any call that is refused.
type failed struct{ fault *soap.Fault }

func (f *failed) Fault() *soap.Fault { return f.fault }

func refuse(fault types.BaseMethodFault, format string, arguments ...interface{}) soap.HasFault {
	return &failed{simulator.Fault(fmt.Sprintf(format, arguments...), fault)}
}

// lift gives the fault of a refusal, for where a task is to end with it.
func lift(body soap.HasFault) (types.BaseMethodFault, string) {
	fault := body.Fault()
	if base, ok := fault.Detail.Fault.(types.BaseMethodFault); ok {
		return base, fault.String
	}
	return new(types.RuntimeFault), fault.String
}
