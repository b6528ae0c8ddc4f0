{{/* Name of every object. Selectors are made of the release's name, so that this may change on upgrade. */}}
{{- define "kosine-operator.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains "kosine-operator" .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-kosine-operator" .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Names of what belongs to no namespace: two releases of one name must not share a ClusterRole. */}}
{{- define "kosine-operator.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "kosine-operator.fullname" .) }}
{{- end }}

{{/* Never add to it, never take from it: a Deployment's selector cannot be changed. */}}
{{- define "kosine-operator.selector" -}}
app.kubernetes.io/name: kosine-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "kosine-operator.labels" -}}
{{ include "kosine-operator.selector" . }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: kosine
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kosine-operator.metadata" -}}
name: {{ include "kosine-operator.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "kosine-operator.labels" . | nindent 2 }}
{{- end }}

{{/* (dict "image" VALUES "version" APPVERSION) as repository:tag or repository@digest. */}}
{{- define "kosine-operator.image" -}}
{{- if .image.digest }}{{ printf "%s@%s" .image.repository .image.digest }}
{{- else }}{{ printf "%s:%s" .image.repository (.image.tag | default .version) }}
{{- end }}
{{- end }}

{{- define "kosine-operator.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "kosine-operator.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* As JSON: the namespaces to work in, none where it is every one. */}}
{{- define "kosine-operator.namespaces" -}}
{{- if .Values.clusterWide }}[]
{{- else }}{{ .Values.watchNamespaces | default (list .Release.Namespace) | uniq | sortAlpha | toJson }}
{{- end }}
{{- end }}

{{- define "kosine-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "kosine-operator.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
