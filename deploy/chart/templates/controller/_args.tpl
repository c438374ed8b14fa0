{{/* The controller's arguments. */}}
{{- define "vmferry.controllerArgs" -}}
{{- $c := .Values.controller -}}
- controller
- --log-format={{ $c.logFormat }}
- --executor={{ $c.executor }}
- --verify={{ $c.verify }}
- --metrics-addr=0.0.0.0:8080
- --health-addr=0.0.0.0:8081
- --runtime-dir=/run/vmferry
- --leader-elect={{ $c.leaderElection.enabled }}
{{- if $c.leaderElection.enabled }}
- --lease-name={{ include "vmferry.leaseName" . }}
{{- end }}
{{- if ne $c.providers "auto" }}
- --providers={{ $c.providers }}
{{- end }}
{{- with .Values.watchNamespace }}
- --watch-namespace={{ . }}
{{- end }}
{{- with $c.maxConcurrent }}
- --max-concurrent={{ . }}
{{- end }}
{{- with $c.maxPerProvider }}
- --max-per-provider={{ . }}
{{- end }}
{{- with $c.maxPerHost }}
- --max-per-host={{ . }}
{{- end }}
{{- with $c.bandwidthLimit }}
- --bandwidth-limit={{ . }}
{{- end }}
{{- with $c.allowedStorageHosts }}
- --allowed-storage-hosts={{ join "," . }}
{{- end }}
{{- if eq $c.executor "job" }}
- --worker-image={{ include "vmferry.image" . }}
- --worker-service-account={{ .Values.worker.serviceAccount.name }}
- --worker-pod-template=/etc/vmferry/worker/pod-template.yaml
{{- with .Values.worker.startLimit }}
- --worker-start-limit={{ . }}
{{- end }}
{{- if .Values.worker.nfsVolumes }}
- --nfs-volumes
{{- end }}
{{- end }}
{{- if .Values.webhook.enabled }}
- --webhook-addr=0.0.0.0:{{ .Values.webhook.port }}
- --webhook-cert-dir=/etc/vmferry/webhook
{{- end }}
{{- with $c.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}
