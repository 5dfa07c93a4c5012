{{/* Labels that select the agent's pods; they never change. */}}
{{- define "flowpin.selector" -}}
app.kubernetes.io/name: flowpin
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "flowpin.labels" -}}
{{ include "flowpin.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* A release by the chart's own name is called that, others are called after both. */}}
{{- define "flowpin.name" -}}
{{- if eq .Release.Name "flowpin" }}flowpin{{ else }}{{ printf "%s-flowpin" .Release.Name | trunc 52 }}{{ end }}
{{- end }}

{{- define "flowpin.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Beside kube-proxy its ports are taken. */}}
{{- define "flowpin.healthPort" -}}
{{- .Values.healthPort | default (ternary 10356 10256 (ne .Values.serviceProxyName "")) | int }}
{{- end }}
{{- define "flowpin.metricsPort" -}}
{{- .Values.metricsPort | default (ternary 10349 10249 (ne .Values.serviceProxyName "")) | int }}
{{- end }}
{{- define "flowpin.metricsListen" -}}
{{- .Values.metrics.listen | default (ternary "0.0.0.0:9479" "127.0.0.1:9479" .Values.podMonitor.enabled) }}
{{- end }}

{{/* The Secret with certificates of nodes that share counts, if there is one. */}}
{{- define "flowpin.clusterSecret" -}}
{{- if .Values.cluster.enabled }}{{ .Values.cluster.secret }}{{ end }}
{{- end }}

{{/* Where the kubelet asks: at Flowpin's own port, since that of a node's health may still be kube-proxy's. */}}
{{- define "flowpin.probe" -}}
{{- $listen := include "flowpin.metricsListen" . }}
{{- $host := regexReplaceAll ":[0-9]+$" $listen "" | trimAll "[]" -}}
host: {{ ternary "127.0.0.1" $host (has $host (list "0.0.0.0" "::")) | quote }}
port: {{ regexFind "[0-9]+$" $listen }}
{{- end }}

{{/*
What a pod asks for. The kernel charges BPF maps to the pod that made them: 568 bytes for a flow of either IP version, and 192 MiB for
everything else with some 1,000 Services. How many flows are the default depends on the node's CPUs; 131,072 is the least.
*/}}
{{- define "flowpin.resources" -}}
{{- $flows := .Values.config.maxFlows | default 131072 | int64 }}
{{- $mebibytes := add 192 (div (mul $flows 568) 1048576) }}
{{- $computed := dict "requests" (dict "memory" (printf "%dMi" $mebibytes)) }}
{{- toYaml (merge (deepCopy .Values.resources) $computed) }}
{{- end }}
