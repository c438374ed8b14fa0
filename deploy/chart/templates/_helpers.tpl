{{/* The name of the release's objects: at most 40 characters, so that suffixes fit. */}}
{{- define "vmferry.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What a selector matches. It never changes: selectors of Deployments cannot. */}}
{{- define "vmferry.selector" -}}
app.kubernetes.io/name: vmferry
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end -}}

{{/* Labels of every object. */}}
{{- define "vmferry.labels" -}}
app.kubernetes.io/name: vmferry
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: vmferry
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "vmferry.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "vmferry.serviceAccount" -}}
{{- .Values.controller.serviceAccount.name | default (printf "%s-controller" (include "vmferry.fullname" .)) -}}
{{- end -}}

{{- define "vmferry.leaseName" -}}
{{- .Values.controller.leaderElection.leaseName | default (printf "%s-controller" (include "vmferry.fullname" .)) -}}
{{- end -}}

{{/* The Secret with the webhook's certificate. */}}
{{- define "vmferry.webhookSecret" -}}
{{- with .Values.webhook.certificate -}}
{{- if and (not .certManager) (or (not .secretName) (not .caBundle)) -}}
{{- fail "webhook.certificate: without certManager, give secretName and caBundle" -}}
{{- end -}}
{{- .secretName | default (printf "%s-webhook-certificate" (include "vmferry.fullname" $)) -}}
{{- end -}}
{{- end -}}

{{/* The namespaces whose migrations get workers, as a JSON list. */}}
{{- define "vmferry.workerNamespaces" -}}
{{- if ne .Values.controller.executor "job" -}}
[]
{{- else if and (not .Values.worker.namespaces) .Values.watchNamespace -}}
{{ list .Values.watchNamespace | toJson }}
{{- else -}}
{{ .Values.worker.namespaces | uniq | toJson }}
{{- end -}}
{{- end -}}

{{/* The service accounts of all workers, as subjects. */}}
{{- define "vmferry.workerSubjects" -}}
{{- range include "vmferry.workerNamespaces" . | fromJsonArray }}
- kind: ServiceAccount
  name: {{ $.Values.worker.serviceAccount.name }}
  namespace: {{ . }}
{{- end }}
{{- end -}}

{{/* Where pods may connect to. */}}
{{- define "vmferry.egress" -}}
- ports:
    - { protocol: UDP, port: 53 }
    - { protocol: TCP, port: 53 }
{{- with .Values.networkPolicy.egress }}
{{ toYaml . }}
{{- else }}
- to:
    - ipBlock: { cidr: 0.0.0.0/0, except: [169.254.0.0/16] }
    - ipBlock: { cidr: "::/0", except: ["fe80::/10"] }
{{- end }}
{{- end -}}

{{/* A Role or ClusterRole of the controller with its binding: root, kind, name, namespace, rules. */}}
{{- define "vmferry.role" -}}
{{- $labels := include "vmferry.labels" .root }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- $labels | nindent 4 }}
rules:
  {{- range .rules }}
  {{- . | nindent 2 }}
  {{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- $labels | nindent 4 }}
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: {{ .kind }}, name: {{ .name }} }
subjects:
  - kind: ServiceAccount
    name: {{ include "vmferry.serviceAccount" .root }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}
