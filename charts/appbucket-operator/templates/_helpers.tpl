{{- define "appbucket.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}{{- end }}{{- end }}
{{- end }}

{{- define "appbucket.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "appbucket.labels" -}}
{{ include "appbucket.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end }}

{{/* What the controller needs in each namespace that it watches. */}}
{{- define "appbucket.controllerRules" -}}
# Watches AppBuckets; puts its finalizer and the bucket's name on them.
- apiGroups: [storage.openfactory.tech]
  resources: [appbuckets]
  verbs: [get, list, watch, patch]
# Writes their status.
- apiGroups: [storage.openfactory.tech]
  resources: [appbuckets/status]
  verbs: [patch]
# Makes Secrets whose owner reference blocks the owner's deletion (admission plugin OwnerReferencesPermissionEnforcement).
- apiGroups: [storage.openfactory.tech]
  resources: [appbuckets/finalizers]
  verbs: [update]
# Reads, makes and repairs the Secrets that it owns. Watches metadata only, and by label; RBAC can't say so.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch]
# Tells what it does.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* What is the same for the pods of both Deployments. */}}
{{- define "appbucket.podSpec" -}}
serviceAccountName: {{ .account }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "appbucket.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "appbucket.container" -}}
image: {{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}
