{{/* The beginning of every name. */}}
{{- define "kubedaemon.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of a component: (list . "activator") */}}
{{- define "kubedaemon.component" -}}
{{- printf "%s-%s" (include "kubedaemon.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{/* What selects the pods of a component. Never changed: a Deployment's selector cannot be. (list . "activator") */}}
{{- define "kubedaemon.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The labels of everything. (list . "activator") */}}
{{- define "kubedaemon.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{ include "kubedaemon.selector" . }}
app.kubernetes.io/part-of: kubedaemon
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end -}}

{{/* An image of ours, by digest when there is one. (list . "activator") */}}
{{- define "kubedaemon.image" -}}
{{- $image := (index . 0).Values.image -}}
{{- $name := index . 1 -}}
{{- $path := without (list $image.registry $image.repository $name) "" | join "/" -}}
{{- $digest := index $image.digests $name -}}
{{- if $digest -}}
{{- printf "%s@%s" $path $digest -}}
{{- else -}}
{{- printf "%s:%s" $path (default (index . 0).Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The environment of every component. (list . $component) */}}
{{- define "kubedaemon.env" -}}
{{- $values := (index . 0).Values -}}
- name: KUBEDAEMON_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: KUBEDAEMON_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- with concat $values.extraEnv (index . 1).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The environment of a component that speaks to the broker. */}}
{{- define "kubedaemon.broker" -}}
# Not optional: a component starts as soon as the Secret is there, and never with another broker.
- name: KUBEDAEMON_BROKER
  valueFrom:
    secretKeyRef:
      name: {{ .Values.broker.secretName }}
      key: {{ .Values.broker.secretKey }}
{{- end -}}

{{/* What every container has: probes and restrictions. The level is "restricted" of the Pod Security Standards. */}}
{{- define "kubedaemon.container" -}}
livenessProbe:
  httpGet: {path: /healthz, port: admin}
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 2
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
terminationMessagePolicy: FallbackToLogsOnError
{{- end -}}

{{/* Labels and annotations of a component's pods. (list . "activator" $component) */}}
{{- define "kubedaemon.podMetadata" -}}
{{- $root := index . 0 -}}
labels:
  # Without versions: pods are replaced when something in them changes, and not because the chart is another one.
  {{- include "kubedaemon.selector" (list $root (index . 1)) | nindent 2 }}
  app.kubernetes.io/part-of: kubedaemon
  {{- with merge (dict) (index . 2).podLabels $root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (index . 2).podAnnotations $root.Values.podAnnotations -}}
{{- if and $root.Values.broker.url (ne (index . 1) "injector") }}
{{- $_ := set $annotations "checksum/broker" ($root.Values.broker.url | sha256sum) -}}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What every pod has beside its container. (list . "activator") */}}
{{- define "kubedaemon.pod" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $values := $root.Values -}}
serviceAccountName: {{ include "kubedaemon.component" (list $root $name) }}
automountServiceAccountToken: true
# Services named kubedaemon-… would become variables that look like settings of ours.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
# Replicas go to different nodes and zones where there are several; one node takes them all.
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "kubedaemon.selector" (list $root $name) | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end -}}

{{/* Rules about workloads: for the whole cluster, or for the one namespace that is watched.
(list . "activator" "rules") */}}
{{- define "kubedaemon.workloadRules" -}}
{{- $root := index . 0 -}}
{{- $name := include "kubedaemon.component" (list $root (index . 1)) -}}
{{- $watched := $root.Values.watchNamespace -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ empty $watched | ternary "ClusterRole" "Role" }}
metadata:
  name: {{ $name }}{{ if $watched }}-workloads{{ end }}
  {{- if $watched }}
  namespace: {{ $watched }}
  {{- end }}
  labels:
    {{- include "kubedaemon.labels" (list $root (index . 1)) | nindent 4 }}
rules:
  {{- index . 2 | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ empty $watched | ternary "ClusterRoleBinding" "RoleBinding" }}
metadata:
  name: {{ $name }}{{ if $watched }}-workloads{{ end }}
  {{- if $watched }}
  namespace: {{ $watched }}
  {{- end }}
  labels:
    {{- include "kubedaemon.labels" (list $root (index . 1)) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ empty $watched | ternary "ClusterRole" "Role" }}
  name: {{ $name }}{{ if $watched }}-workloads{{ end }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ $root.Release.Namespace }}
{{- end -}}

{{/* A role in the chart's own namespace. (list . "activator" "rules") */}}
{{- define "kubedaemon.ownRules" -}}
{{- $root := index . 0 -}}
{{- $name := include "kubedaemon.component" (list $root (index . 1)) -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "kubedaemon.labels" (list $root (index . 1)) | nindent 4 }}
rules:
  {{- index . 2 | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "kubedaemon.labels" (list $root (index . 1)) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ $root.Release.Namespace }}
{{- end -}}
