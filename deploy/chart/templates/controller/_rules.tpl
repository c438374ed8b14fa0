{{/* What the controller may do where migrations are. Each rule says what it is for; there is none without a use. */}}
{{- define "vmferry.controllerRules" -}}
# Migrations: their finalizer, labels and status, all by patch.
- apiGroups: [infra.virtrigaud.io]
  resources: [vmmigrations]
  verbs: [get, list, watch, patch]
- apiGroups: [infra.virtrigaud.io]
  resources: [vmmigrations/status]
  verbs: [patch]
# The source's VirtualMachine is read, the target's is made, and both have a status. None is changed or deleted.
- apiGroups: [infra.virtrigaud.io]
  resources: [virtualmachines]
  verbs: [get, list, watch, create]
- apiGroups: [infra.virtrigaud.io]
  resources: [virtualmachines/status]
  verbs: [patch]
# Events, in the API of today and in that of old.
- apiGroups: [events.k8s.io, ""]
  resources: [events]
  verbs: [create, patch]
{{- if eq .Values.controller.executor "job" }}
# Workers: a Job for a data phase, its pods until they are gone, and the Lease that says which worker may move bytes.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, update, delete]
{{- end }}
{{- end -}}

{{/* What the controller may do where Providers and Secrets are. */}}
{{- define "vmferry.providerRules" -}}
- apiGroups: [infra.virtrigaud.io]
  resources: [providers]
  verbs: [get, list, watch]
{{- if ne .Values.controller.providers "read" }}
# Health, where no manager of VirtRigaud's says it.
- apiGroups: [infra.virtrigaud.io]
  resources: [providers/status]
  verbs: [patch]
{{- end }}
{{- end -}}

{{/* Secrets are read by name when they are used, never listed and never watched. */}}
{{- define "vmferry.secretRules" -}}
- apiGroups: [""]
  resources: [secrets]
  {{- with . }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: [get]
{{- end -}}

{{/* Providers and Secrets of a namespace that is shared with migrations of others. */}}
{{- define "vmferry.sharedRules" -}}
- apiGroups: [infra.virtrigaud.io]
  resources: [providers]
  verbs: [get]
{{ include "vmferry.secretRules" . }}
{{- end -}}
