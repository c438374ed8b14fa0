{{/* What the controller may do where migrations are. Each rule says what it is for; there is none without a use. */}}
{{- define "vmferry.controllerRules" -}}
# Migrations: their finalizer and labels by patch, their status by server-side apply.
- apiGroups: [infra.virtrigaud.io]
  resources: [vmmigrations]
  verbs: [get, list, watch, update, patch]
- apiGroups: [infra.virtrigaud.io]
  resources: [vmmigrations/status]
  verbs: [get, update, patch]
# To own the Jobs, where the cluster asks for it (OwnerReferencesPermissionEnforcement).
- apiGroups: [infra.virtrigaud.io]
  resources: [vmmigrations/finalizers]
  verbs: [update]
# The source's VirtualMachine is read, the target's is made, and both have a status. None is changed or deleted.
- apiGroups: [infra.virtrigaud.io]
  resources: [virtualmachines]
  verbs: [get, list, watch, create]
- apiGroups: [infra.virtrigaud.io]
  resources: [virtualmachines/status]
  verbs: [get, patch]
# Events, in the API of today and in that of old.
- apiGroups: [events.k8s.io, ""]
  resources: [events]
  verbs: [create, patch]
{{- if eq .Values.controller.executor "job" }}
# Workers: a Job for a data phase, its pods until they are gone, its Lease for its heartbeat.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch]
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
  verbs: [get, patch]
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
