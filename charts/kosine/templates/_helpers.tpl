{{/* Name of every object. Selectors are made of the release's name, so that this may change on upgrade. */}}
{{- define "kosine.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains "kosine" .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-kosine" .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Never add to it, never take from it: a Deployment's selector cannot be changed. */}}
{{- define "kosine.selector" -}}
app.kubernetes.io/name: kosine
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: service
{{- end }}

{{- define "kosine.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: kosine
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kosine.labels" -}}
{{ include "kosine.selector" . }}
{{ include "kosine.commonLabels" . }}
{{- end }}

{{- define "kosine.metadata" -}}
name: {{ include "kosine.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "kosine.labels" . | nindent 2 }}
{{- end }}

{{- define "kosine.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest }}{{ printf "%s@%s" $image.repository $image.digest }}
{{- else }}{{ printf "%s:%s" $image.repository ($image.tag | default (printf "%s%s" .Chart.AppVersion (ternary "-gpu" "" .Values.gpu.enabled))) }}
{{- end }}
{{- end }}

{{- define "kosine.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "kosine.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "kosine.isAutoscaled" -}}
{{- if ne .Values.autoscaling.mode "none" }}true{{ end }}
{{- end }}

{{/* What `kosine serve` reads. */}}
{{- define "kosine.configuration" -}}
{{- $configuration := dict "indexes" (.Values.indexes | default dict) }}
{{- with .Values.defaults }}{{ $_ := set $configuration "defaults" . }}{{ end }}
{{- with .Values.defaultIndex }}{{ $_ := set $configuration "default_index" . }}{{ end }}
{{- toYaml $configuration }}
{{- end }}

{{/* A section of settings as `--set` options, nested ones by their path. */}}
{{- define "kosine.options" -}}
{{- $prefix := .prefix }}
{{- range $name, $value := .settings }}
{{- if kindIs "map" $value }}
{{- include "kosine.options" (dict "prefix" (printf "%s.%s" $prefix $name) "settings" $value) }}
{{- else if not (kindIs "invalid" $value) }}
- {{ printf "--set=%s.%s=%s" $prefix $name (toJson $value) | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whole seconds of a duration, rounded up: 250ms, 30s, 5m, 1h, 1d or a number. */}}
{{- define "kosine.seconds" -}}
{{- $text := toString . }}
{{- $number := regexFind "^[0-9.]+" $text | float64 }}
{{- $factor := get (dict "us" 0.000001 "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) (regexFind "[a-z]+$" $text | default "s") }}
{{- mulf $number $factor | ceil | int64 }}
{{- end }}

{{/* Process settings with the device that `gpu.enabled` asks for. */}}
{{- define "kosine.process" -}}
{{- $process := deepCopy .Values.process }}
{{- if and .Values.gpu.enabled (not $process.device) }}{{ $_ := set $process "device" "gpu" }}{{ end }}
{{- if .Values.cacheSizeLimit }}
{{- if $process.cache_dir }}
{{- fail "cacheSizeLimit and process.cache_dir: expected at most one; the first makes the folder and names it, the second names one of extraVolumeMounts" }}
{{- end }}
{{- $_ := set $process "cache_dir" "/var/cache/kosine" }}
{{- end }}
{{- toJson $process }}
{{- end }}

{{/* SIGTERM, drain_delay, grace, and then some for freeing the indexes. */}}
{{- define "kosine.terminationGracePeriodSeconds" -}}
{{- $delay := include "kosine.seconds" (.Values.process.drain_delay | default "0s") | int }}
{{- $grace := include "kosine.seconds" (.Values.process.grace | default "30s") | int }}
{{- $needed := add $delay $grace 5 | int }}
{{- $given := .Values.terminationGracePeriodSeconds }}
{{- if kindIs "invalid" $given }}{{ $needed }}
{{- else if lt (int $given) $needed }}
{{- fail (printf "terminationGracePeriodSeconds: expected at least %d (process.drain_delay + process.grace + 5), got %d; pods would be killed while they answer" $needed (int $given)) }}
{{- else }}{{ int $given }}
{{- end }}
{{- end }}

{{/* Sum over indexes and pods: KEDA divides it by the number of pods. */}}
{{- define "kosine.queueQuery" -}}
{{- .Values.autoscaling.keda.query | default (printf "sum(avg_over_time(kosine_queue_rows{namespace=%q, service=%q}[1m])) or vector(0)" .Release.Namespace (include "kosine.fullname" .)) }}
{{- end }}
