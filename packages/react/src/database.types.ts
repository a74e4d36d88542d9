// Made by scripts/generate-types.mjs from the migrated schema: do not edit.

export type Json = string | number | boolean | null | { [key: string]: Json | undefined } | Json[]

export type Database = {
  __InternalSupabase: {
    PostgrestVersion: "13"
  }
  public: {
    Tables: {
      analytics_daily: {
        Row: {
          channel_id: string
          created_at: string
          day: string
          delivered: number
          failed: number
          id: string
          org_id: string
          read: number
          received: number
          sent: number
          template_name: string
          updated_at: string
        }
        Insert: {
          channel_id: string
          created_at?: string
          day: string
          delivered?: number
          failed?: number
          id?: string
          org_id: string
          read?: number
          received?: number
          sent?: number
          template_name?: string
          updated_at?: string
        }
        Update: {
          channel_id?: string
          created_at?: string
          day?: string
          delivered?: number
          failed?: number
          id?: string
          org_id?: string
          read?: number
          received?: number
          sent?: number
          template_name?: string
          updated_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "analytics_daily_org_id_channel_id_fkey"
            columns: ["org_id", "channel_id"]
            isOneToOne: false
            referencedRelation: "channels"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      automation_deliveries: {
        Row: {
          automation_id: string
          created_at: string
          dedupe_key: string
          entity_id: string
          notification_id: string
          org_id: string
        }
        Insert: {
          automation_id: string
          created_at?: string
          dedupe_key: string
          entity_id: string
          notification_id: string
          org_id: string
        }
        Update: {
          automation_id?: string
          created_at?: string
          dedupe_key?: string
          entity_id?: string
          notification_id?: string
          org_id?: string
        }
        Relationships: [
          {
            foreignKeyName: "automation_deliveries_org_id_automation_id_fkey"
            columns: ["org_id", "automation_id"]
            isOneToOne: false
            referencedRelation: "automations"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      automation_runs: {
        Row: {
          automation_id: string
          cause: "tick" | "manual" | "event"
          error: string | null
          id: string
          org_id: string
          queued_count: number
          skipped_count: number
          skipped_reason: string | null
          started_at: string
          tick: string | null
        }
        Insert: {
          automation_id: string
          cause: "tick" | "manual" | "event"
          error?: string | null
          id?: string
          org_id: string
          queued_count?: number
          skipped_count?: number
          skipped_reason?: string | null
          started_at?: string
          tick?: string | null
        }
        Update: {
          automation_id?: string
          cause?: "tick" | "manual" | "event"
          error?: string | null
          id?: string
          org_id?: string
          queued_count?: number
          skipped_count?: number
          skipped_reason?: string | null
          started_at?: string
          tick?: string | null
        }
        Relationships: [
          {
            foreignKeyName: "automation_runs_org_id_automation_id_fkey"
            columns: ["org_id", "automation_id"]
            isOneToOne: false
            referencedRelation: "automations"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      automations: {
        Row: {
          created_at: string
          created_by: string | null
          cron_expression: string | null
          description: string | null
          enabled: boolean
          filters: Json
          id: string
          kind: "event" | "cron"
          last_count: number | null
          last_error: string | null
          last_run_at: string | null
          last_run_status: "ok" | "error" | null
          mapping: Json
          name: string
          next_run_at: string | null
          notification_type: "whatsapp" | "email" | "sms"
          operation: "insert" | "update" | null
          org_id: string
          priority: number
          repeat: "once" | "day" | "tick"
          source_schema: string
          source_table: string
          template_id: string
          timezone: string | null
          updated_at: string
          window_column: string | null
          window_days: number | null
        }
        Insert: {
          created_at?: string
          created_by?: string | null
          cron_expression?: string | null
          description?: string | null
          enabled?: boolean
          filters?: Json
          id?: string
          kind: "event" | "cron"
          last_count?: number | null
          last_error?: string | null
          last_run_at?: string | null
          last_run_status?: "ok" | "error" | null
          mapping: Json
          name: string
          next_run_at?: string | null
          notification_type?: "whatsapp" | "email" | "sms"
          operation?: "insert" | "update" | null
          org_id?: string
          priority?: number
          repeat?: "once" | "day" | "tick"
          source_schema?: string
          source_table: string
          template_id: string
          timezone?: string | null
          updated_at?: string
          window_column?: string | null
          window_days?: number | null
        }
        Update: {
          created_at?: string
          created_by?: string | null
          cron_expression?: string | null
          description?: string | null
          enabled?: boolean
          filters?: Json
          id?: string
          kind?: "event" | "cron"
          last_count?: number | null
          last_error?: string | null
          last_run_at?: string | null
          last_run_status?: "ok" | "error" | null
          mapping?: Json
          name?: string
          next_run_at?: string | null
          notification_type?: "whatsapp" | "email" | "sms"
          operation?: "insert" | "update" | null
          org_id?: string
          priority?: number
          repeat?: "once" | "day" | "tick"
          source_schema?: string
          source_table?: string
          template_id?: string
          timezone?: string | null
          updated_at?: string
          window_column?: string | null
          window_days?: number | null
        }
        Relationships: [
          {
            foreignKeyName: "automations_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
        ]
      }
      bulk_jobs: {
        Row: {
          category: "service" | "utility" | "marketing" | "authentication"
          channel_id: string
          content: Json | null
          created_at: string
          created_by: string | null
          duplicates: number
          finished_at: string | null
          id: string
          invalid: number
          message: string | null
          name: string
          org_id: string
          paused_reason: string | null
          priority: number
          scheduled_for: string | null
          started_at: string | null
          status: "draft" | "running" | "paused" | "completed" | "cancelled" | "failed"
          template_id: string | null
          total: number
          updated_at: string
          valid: number
          variables: Json
        }
        Insert: {
          category?: "service" | "utility" | "marketing" | "authentication"
          channel_id: string
          content?: Json | null
          created_at?: string
          created_by?: string | null
          duplicates?: number
          finished_at?: string | null
          id?: string
          invalid?: number
          message?: string | null
          name: string
          org_id?: string
          paused_reason?: string | null
          priority?: number
          scheduled_for?: string | null
          started_at?: string | null
          status?: "draft" | "running" | "paused" | "completed" | "cancelled" | "failed"
          template_id?: string | null
          total?: number
          updated_at?: string
          valid?: number
          variables?: Json
        }
        Update: {
          category?: "service" | "utility" | "marketing" | "authentication"
          channel_id?: string
          content?: Json | null
          created_at?: string
          created_by?: string | null
          duplicates?: number
          finished_at?: string | null
          id?: string
          invalid?: number
          message?: string | null
          name?: string
          org_id?: string
          paused_reason?: string | null
          priority?: number
          scheduled_for?: string | null
          started_at?: string | null
          status?: "draft" | "running" | "paused" | "completed" | "cancelled" | "failed"
          template_id?: string | null
          total?: number
          updated_at?: string
          valid?: number
          variables?: Json
        }
        Relationships: [
          {
            foreignKeyName: "bulk_jobs_org_id_channel_id_fkey"
            columns: ["org_id", "channel_id"]
            isOneToOne: false
            referencedRelation: "channels"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      bulk_recipients: {
        Row: {
          address: string
          channel_id: string
          content: Json | null
          error: string | null
          error_code: string | null
          job_id: string
          message_id: string | null
          name: string | null
          org_id: string
          position: number
          state: "pending" | "queued" | "skipped"
          tries: number
          variables: Json
        }
        Insert: {
          address: string
          channel_id: string
          content?: Json | null
          error?: string | null
          error_code?: string | null
          job_id: string
          message_id?: string | null
          name?: string | null
          org_id?: string
          position: number
          state?: "pending" | "queued" | "skipped"
          tries?: number
          variables?: Json
        }
        Update: {
          address?: string
          channel_id?: string
          content?: Json | null
          error?: string | null
          error_code?: string | null
          job_id?: string
          message_id?: string | null
          name?: string | null
          org_id?: string
          position?: number
          state?: "pending" | "queued" | "skipped"
          tries?: number
          variables?: Json
        }
        Relationships: [
          {
            foreignKeyName: "bulk_recipients_org_id_job_id_fkey"
            columns: ["org_id", "job_id"]
            isOneToOne: false
            referencedRelation: "bulk_jobs"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      channel_members: {
        Row: {
          channel_id: string
          created_at: string
          org_id: string
          user_id: string
        }
        Insert: {
          channel_id: string
          created_at?: string
          org_id: string
          user_id: string
        }
        Update: {
          channel_id?: string
          created_at?: string
          org_id?: string
          user_id?: string
        }
        Relationships: [
          {
            foreignKeyName: "channel_members_org_id_channel_id_fkey"
            columns: ["org_id", "channel_id"]
            isOneToOne: false
            referencedRelation: "channels"
            referencedColumns: ["org_id", "id"]
          },
          {
            foreignKeyName: "channel_members_org_id_user_id_fkey"
            columns: ["org_id", "user_id"]
            isOneToOne: false
            referencedRelation: "profiles"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      channel_notices: {
        Row: {
          at: string
          channel_id: string
          detail: Json
          id: string
          org_id: string
          topic: string
        }
        Insert: {
          at?: string
          channel_id: string
          detail: Json
          id: string
          org_id: string
          topic: string
        }
        Update: {
          at?: string
          channel_id?: string
          detail?: Json
          id?: string
          org_id?: string
          topic?: string
        }
        Relationships: [
          {
            foreignKeyName: "channel_notices_org_id_channel_id_fkey"
            columns: ["org_id", "channel_id"]
            isOneToOne: false
            referencedRelation: "channels"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      channel_pace: {
        Row: {
          channel_id: string
          hold_reason: string | null
          hold_until: string | null
          next_at: string
          org_id: string
          rate_factor: number
          strikes: number
          updated_at: string
        }
        Insert: {
          channel_id: string
          hold_reason?: string | null
          hold_until?: string | null
          next_at?: string
          org_id: string
          rate_factor?: number
          strikes?: number
          updated_at?: string
        }
        Update: {
          channel_id?: string
          hold_reason?: string | null
          hold_until?: string | null
          next_at?: string
          org_id?: string
          rate_factor?: number
          strikes?: number
          updated_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "channel_pace_org_id_channel_id_fkey"
            columns: ["org_id", "channel_id"]
            isOneToOne: true
            referencedRelation: "channels"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      channel_reach: {
        Row: {
          at: string
          contact_id: string
          org_id: string
          reach_group: string
        }
        Insert: {
          at: string
          contact_id: string
          org_id: string
          reach_group: string
        }
        Update: {
          at?: string
          contact_id?: string
          org_id?: string
          reach_group?: string
        }
        Relationships: [
          {
            foreignKeyName: "channel_reach_org_id_contact_id_fkey"
            columns: ["org_id", "contact_id"]
            isOneToOne: false
            referencedRelation: "contacts"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      channels: {
        Row: {
          created_at: string
          id: string
          kind: string
          limits: Json
          name: string
          org_id: string
          routing_keys: string[]
          settings: Json
          status: "active" | "paused" | "blocked"
          status_reason: string | null
          templates_synced_at: string | null
          updated_at: string
        }
        Insert: {
          created_at?: string
          id: string
          kind: string
          limits?: Json
          name: string
          org_id: string
          routing_keys?: string[]
          settings?: Json
          status?: "active" | "paused" | "blocked"
          status_reason?: string | null
          templates_synced_at?: string | null
          updated_at?: string
        }
        Update: {
          created_at?: string
          id?: string
          kind?: string
          limits?: Json
          name?: string
          org_id?: string
          routing_keys?: string[]
          settings?: Json
          status?: "active" | "paused" | "blocked"
          status_reason?: string | null
          templates_synced_at?: string | null
          updated_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "channels_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
        ]
      }
      consents: {
        Row: {
          at: string
          category: string
          channel_id: string | null
          contact_id: string
          id: string
          org_id: string
          source: string
          state: "opted_in" | "opted_out"
        }
        Insert: {
          at: string
          category?: string
          channel_id?: string | null
          contact_id: string
          id?: string
          org_id?: string
          source: string
          state: "opted_in" | "opted_out"
        }
        Update: {
          at?: string
          category?: string
          channel_id?: string | null
          contact_id?: string
          id?: string
          org_id?: string
          source?: string
          state?: "opted_in" | "opted_out"
        }
        Relationships: [
          {
            foreignKeyName: "consents_org_id_channel_id_fkey"
            columns: ["org_id", "channel_id"]
            isOneToOne: false
            referencedRelation: "channels"
            referencedColumns: ["org_id", "id"]
          },
          {
            foreignKeyName: "consents_org_id_contact_id_fkey"
            columns: ["org_id", "contact_id"]
            isOneToOne: false
            referencedRelation: "contacts"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      contact_identities: {
        Row: {
          contact_id: string
          created_at: string
          kind: "phone" | "bsuid" | "jid" | "lid" | "email"
          org_id: string
          value: string
        }
        Insert: {
          contact_id: string
          created_at?: string
          kind: "phone" | "bsuid" | "jid" | "lid" | "email"
          org_id?: string
          value: string
        }
        Update: {
          contact_id?: string
          created_at?: string
          kind?: "phone" | "bsuid" | "jid" | "lid" | "email"
          org_id?: string
          value?: string
        }
        Relationships: [
          {
            foreignKeyName: "contact_identities_org_id_contact_id_fkey"
            columns: ["org_id", "contact_id"]
            isOneToOne: false
            referencedRelation: "contacts"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      contacts: {
        Row: {
          attributes: Json
          avatar_url: string | null
          created_at: string
          email: string | null
          id: string
          name: string | null
          org_id: string
          phone_number: string | null
          timezone: string | null
          updated_at: string
        }
        Insert: {
          attributes?: Json
          avatar_url?: string | null
          created_at?: string
          email?: string | null
          id?: string
          name?: string | null
          org_id?: string
          phone_number?: string | null
          timezone?: string | null
          updated_at?: string
        }
        Update: {
          attributes?: Json
          avatar_url?: string | null
          created_at?: string
          email?: string | null
          id?: string
          name?: string | null
          org_id?: string
          phone_number?: string | null
          timezone?: string | null
          updated_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "contacts_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
        ]
      }
      conversations: {
        Row: {
          assigned_to: string | null
          channel_id: string
          contact_id: string
          created_at: string
          customer_name: string | null
          group_id: string | null
          id: string
          last_direction: string | null
          last_inbound_at: string | null
          last_message: string | null
          last_message_at: string | null
          metadata: Json
          notes: string | null
          org_id: string
          patient_id: string | null
          phone_number: string | null
          status: "active" | "archived" | "blocked"
          tags: string[]
          unread_count: number
          updated_at: string
        }
        Insert: {
          assigned_to?: string | null
          channel_id: string
          contact_id: string
          created_at?: string
          customer_name?: string | null
          group_id?: string | null
          id?: string
          last_direction?: string | null
          last_inbound_at?: string | null
          last_message?: string | null
          last_message_at?: string | null
          metadata?: Json
          notes?: string | null
          org_id?: string
          patient_id?: string | null
          phone_number?: string | null
          status?: "active" | "archived" | "blocked"
          tags?: string[]
          unread_count?: number
          updated_at?: string
        }
        Update: {
          assigned_to?: string | null
          channel_id?: string
          contact_id?: string
          created_at?: string
          customer_name?: string | null
          group_id?: string | null
          id?: string
          last_direction?: string | null
          last_inbound_at?: string | null
          last_message?: string | null
          last_message_at?: string | null
          metadata?: Json
          notes?: string | null
          org_id?: string
          patient_id?: string | null
          phone_number?: string | null
          status?: "active" | "archived" | "blocked"
          tags?: string[]
          unread_count?: number
          updated_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "conversations_org_id_assigned_to_fkey"
            columns: ["org_id", "assigned_to"]
            isOneToOne: false
            referencedRelation: "profiles"
            referencedColumns: ["org_id", "id"]
          },
          {
            foreignKeyName: "conversations_org_id_channel_id_fkey"
            columns: ["org_id", "channel_id"]
            isOneToOne: false
            referencedRelation: "channels"
            referencedColumns: ["org_id", "id"]
          },
          {
            foreignKeyName: "conversations_org_id_contact_id_fkey"
            columns: ["org_id", "contact_id"]
            isOneToOne: false
            referencedRelation: "contacts"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      external_refs: {
        Row: {
          external_id: string
          kind: string
          org_id: string
          row_id: string
          source: string
        }
        Insert: {
          external_id: string
          kind: string
          org_id: string
          row_id: string
          source: string
        }
        Update: {
          external_id?: string
          kind?: string
          org_id?: string
          row_id?: string
          source?: string
        }
        Relationships: []
      }
      idempotency_keys: {
        Row: {
          created_at: string
          key: string
          message_id: string
          org_id: string
          request_hash: string
          scope: string
        }
        Insert: {
          created_at?: string
          key: string
          message_id: string
          org_id: string
          request_hash: string
          scope: string
        }
        Update: {
          created_at?: string
          key?: string
          message_id?: string
          org_id?: string
          request_hash?: string
          scope?: string
        }
        Relationships: [
          {
            foreignKeyName: "idempotency_keys_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
        ]
      }
      invitations: {
        Row: {
          accepted_at: string | null
          accepted_by: string | null
          channel_ids: string[]
          created_at: string
          email: string
          expires_at: string
          full_name: string | null
          id: string
          invited_by: string | null
          mailed_at: string | null
          org_id: string
          role: "owner" | "admin" | "agent" | "viewer"
          updated_at: string
        }
        Insert: {
          accepted_at?: string | null
          accepted_by?: string | null
          channel_ids?: string[]
          created_at?: string
          email: string
          expires_at: string
          full_name?: string | null
          id?: string
          invited_by?: string | null
          mailed_at?: string | null
          org_id: string
          role: "owner" | "admin" | "agent" | "viewer"
          updated_at?: string
        }
        Update: {
          accepted_at?: string | null
          accepted_by?: string | null
          channel_ids?: string[]
          created_at?: string
          email?: string
          expires_at?: string
          full_name?: string | null
          id?: string
          invited_by?: string | null
          mailed_at?: string | null
          org_id?: string
          role?: "owner" | "admin" | "agent" | "viewer"
          updated_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "invitations_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
        ]
      }
      media: {
        Row: {
          attempts: number
          channel_id: string
          created_at: string
          due_at: string
          error: string | null
          filename: string | null
          id: string
          message_id: string
          mime_type: string | null
          org_id: string
          sha256: string | null
          size_bytes: number | null
          source: Json
          status: "pending" | "stored" | "failed"
          storage_key: string | null
          updated_at: string
          webhook_event_id: string | null
        }
        Insert: {
          attempts?: number
          channel_id: string
          created_at?: string
          due_at?: string
          error?: string | null
          filename?: string | null
          id: string
          message_id: string
          mime_type?: string | null
          org_id: string
          sha256?: string | null
          size_bytes?: number | null
          source: Json
          status?: "pending" | "stored" | "failed"
          storage_key?: string | null
          updated_at?: string
          webhook_event_id?: string | null
        }
        Update: {
          attempts?: number
          channel_id?: string
          created_at?: string
          due_at?: string
          error?: string | null
          filename?: string | null
          id?: string
          message_id?: string
          mime_type?: string | null
          org_id?: string
          sha256?: string | null
          size_bytes?: number | null
          source?: Json
          status?: "pending" | "stored" | "failed"
          storage_key?: string | null
          updated_at?: string
          webhook_event_id?: string | null
        }
        Relationships: [
          {
            foreignKeyName: "media_org_id_message_id_fkey"
            columns: ["org_id", "message_id"]
            isOneToOne: false
            referencedRelation: "messages"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      message_attempts: {
        Row: {
          accepted_at: string | null
          channel_id: string
          created_at: string
          error_code: string | null
          error_message: string | null
          id: string
          message_id: string
          org_id: string
          provider_message_id: string | null
          status: "pending" | "queued" | "sending" | "unknown" | "cancelled" | "sent" | "failed" | "delivered" | "read" | "received"
        }
        Insert: {
          accepted_at?: string | null
          channel_id: string
          created_at?: string
          error_code?: string | null
          error_message?: string | null
          id: string
          message_id: string
          org_id: string
          provider_message_id?: string | null
          status: "pending" | "queued" | "sending" | "unknown" | "cancelled" | "sent" | "failed" | "delivered" | "read" | "received"
        }
        Update: {
          accepted_at?: string | null
          channel_id?: string
          created_at?: string
          error_code?: string | null
          error_message?: string | null
          id?: string
          message_id?: string
          org_id?: string
          provider_message_id?: string | null
          status?: "pending" | "queued" | "sending" | "unknown" | "cancelled" | "sent" | "failed" | "delivered" | "read" | "received"
        }
        Relationships: [
          {
            foreignKeyName: "message_attempts_org_id_message_id_fkey"
            columns: ["org_id", "message_id"]
            isOneToOne: false
            referencedRelation: "messages"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      message_events: {
        Row: {
          at: string
          attempt_id: string | null
          detail: Json | null
          event: string
          id: string
          message_id: string
          org_id: string
          recorded_at: string
        }
        Insert: {
          at: string
          attempt_id?: string | null
          detail?: Json | null
          event: string
          id: string
          message_id: string
          org_id: string
          recorded_at?: string
        }
        Update: {
          at?: string
          attempt_id?: string | null
          detail?: Json | null
          event?: string
          id?: string
          message_id?: string
          org_id?: string
          recorded_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "message_events_org_id_message_id_fkey"
            columns: ["org_id", "message_id"]
            isOneToOne: false
            referencedRelation: "messages"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      message_reactions: {
        Row: {
          actor: string
          at: string
          channel_id: string
          emoji: string
          id: string
          org_id: string
          target_provider_message_id: string
        }
        Insert: {
          actor: string
          at: string
          channel_id: string
          emoji: string
          id?: string
          org_id?: string
          target_provider_message_id: string
        }
        Update: {
          actor?: string
          at?: string
          channel_id?: string
          emoji?: string
          id?: string
          org_id?: string
          target_provider_message_id?: string
        }
        Relationships: [
          {
            foreignKeyName: "message_reactions_org_id_channel_id_fkey"
            columns: ["org_id", "channel_id"]
            isOneToOne: false
            referencedRelation: "channels"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      messages: {
        Row: {
          address: string | null
          body: string | null
          bulk_job_id: string | null
          category: "service" | "utility" | "marketing" | "authentication"
          channel_id: string
          contact_id: string
          content: Json | null
          conversation_id: string
          created_at: string
          customer_name: string | null
          delivered_at: string | null
          delivery_policy: "at_least_once" | "at_most_once"
          direction: "inbound" | "outbound"
          edited_at: string | null
          error_code: string | null
          error_message: string | null
          failed_at: string | null
          id: string
          media: Json | null
          message_type: string
          metadata: Json
          notification_id: string | null
          org_id: string
          pricing: Json | null
          provider_message_id: string | null
          quoted_message_id: string | null
          read_at: string | null
          referral: Json | null
          related_entity_id: string | null
          request_id: string | null
          retry_count: number
          revoked_at: string | null
          scheduled_at: string | null
          sender_id: string | null
          sent_at: string | null
          status: "pending" | "queued" | "sending" | "unknown" | "cancelled" | "sent" | "failed" | "delivered" | "read" | "received"
          trigger_type: string
          updated_at: string
        }
        Insert: {
          address?: string | null
          body?: string | null
          bulk_job_id?: string | null
          category?: "service" | "utility" | "marketing" | "authentication"
          channel_id: string
          contact_id: string
          content?: Json | null
          conversation_id: string
          created_at?: string
          customer_name?: string | null
          delivered_at?: string | null
          delivery_policy?: "at_least_once" | "at_most_once"
          direction: "inbound" | "outbound"
          edited_at?: string | null
          error_code?: string | null
          error_message?: string | null
          failed_at?: string | null
          id?: string
          media?: Json | null
          message_type: string
          metadata?: Json
          notification_id?: string | null
          org_id?: string
          pricing?: Json | null
          provider_message_id?: string | null
          quoted_message_id?: string | null
          read_at?: string | null
          referral?: Json | null
          related_entity_id?: string | null
          request_id?: string | null
          retry_count?: number
          revoked_at?: string | null
          scheduled_at?: string | null
          sender_id?: string | null
          sent_at?: string | null
          status: "pending" | "queued" | "sending" | "unknown" | "cancelled" | "sent" | "failed" | "delivered" | "read" | "received"
          trigger_type?: string
          updated_at?: string
        }
        Update: {
          address?: string | null
          body?: string | null
          bulk_job_id?: string | null
          category?: "service" | "utility" | "marketing" | "authentication"
          channel_id?: string
          contact_id?: string
          content?: Json | null
          conversation_id?: string
          created_at?: string
          customer_name?: string | null
          delivered_at?: string | null
          delivery_policy?: "at_least_once" | "at_most_once"
          direction?: "inbound" | "outbound"
          edited_at?: string | null
          error_code?: string | null
          error_message?: string | null
          failed_at?: string | null
          id?: string
          media?: Json | null
          message_type?: string
          metadata?: Json
          notification_id?: string | null
          org_id?: string
          pricing?: Json | null
          provider_message_id?: string | null
          quoted_message_id?: string | null
          read_at?: string | null
          referral?: Json | null
          related_entity_id?: string | null
          request_id?: string | null
          retry_count?: number
          revoked_at?: string | null
          scheduled_at?: string | null
          sender_id?: string | null
          sent_at?: string | null
          status?: "pending" | "queued" | "sending" | "unknown" | "cancelled" | "sent" | "failed" | "delivered" | "read" | "received"
          trigger_type?: string
          updated_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "messages_org_id_conversation_id_fkey"
            columns: ["org_id", "conversation_id"]
            isOneToOne: false
            referencedRelation: "conversations"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      notification_queue: {
        Row: {
          attempts: number
          completed_at: string | null
          created_at: string
          error_message: string | null
          id: string
          last_attempt_at: string | null
          max_attempts: number
          message_data: Json
          notification_type: "whatsapp" | "email" | "sms"
          org_id: string
          priority: number
          recipient_email: string | null
          recipient_id: string | null
          recipient_phone: string | null
          scheduled_for: string
          status: "pending" | "processing" | "completed" | "failed" | "cancelled"
          template_id: string | null
          updated_at: string
          whatsapp_message_id: string | null
        }
        Insert: {
          attempts?: number
          completed_at?: string | null
          created_at?: string
          error_message?: string | null
          id?: string
          last_attempt_at?: string | null
          max_attempts?: number
          message_data?: Json
          notification_type?: "whatsapp" | "email" | "sms"
          org_id?: string
          priority?: number
          recipient_email?: string | null
          recipient_id?: string | null
          recipient_phone?: string | null
          scheduled_for?: string
          status?: "pending" | "processing" | "completed" | "failed" | "cancelled"
          template_id?: string | null
          updated_at?: string
          whatsapp_message_id?: string | null
        }
        Update: {
          attempts?: number
          completed_at?: string | null
          created_at?: string
          error_message?: string | null
          id?: string
          last_attempt_at?: string | null
          max_attempts?: number
          message_data?: Json
          notification_type?: "whatsapp" | "email" | "sms"
          org_id?: string
          priority?: number
          recipient_email?: string | null
          recipient_id?: string | null
          recipient_phone?: string | null
          scheduled_for?: string
          status?: "pending" | "processing" | "completed" | "failed" | "cancelled"
          template_id?: string | null
          updated_at?: string
          whatsapp_message_id?: string | null
        }
        Relationships: [
          {
            foreignKeyName: "notification_queue_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
        ]
      }
      notifications: {
        Row: {
          advice: string | null
          body: string | null
          channel_id: string | null
          conversation_id: string | null
          created_at: string
          data: Json
          error_code: string | null
          id: string
          kind: string
          level: "info" | "warning" | "error"
          message_id: string | null
          org_id: string
          read_at: string | null
          title: string
          user_id: string | null
        }
        Insert: {
          advice?: string | null
          body?: string | null
          channel_id?: string | null
          conversation_id?: string | null
          created_at?: string
          data?: Json
          error_code?: string | null
          id?: string
          kind: string
          level?: "info" | "warning" | "error"
          message_id?: string | null
          org_id?: string
          read_at?: string | null
          title: string
          user_id?: string | null
        }
        Update: {
          advice?: string | null
          body?: string | null
          channel_id?: string | null
          conversation_id?: string | null
          created_at?: string
          data?: Json
          error_code?: string | null
          id?: string
          kind?: string
          level?: "info" | "warning" | "error"
          message_id?: string | null
          org_id?: string
          read_at?: string | null
          title?: string
          user_id?: string | null
        }
        Relationships: [
          {
            foreignKeyName: "notifications_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "notifications_org_id_message_id_fkey"
            columns: ["org_id", "message_id"]
            isOneToOne: false
            referencedRelation: "messages"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      organizations: {
        Row: {
          created_at: string
          id: string
          locale: string
          name: string
          org_id: string
          region: string | null
          sending_policy: Json
          slug: string
          timezone: string
          updated_at: string
        }
        Insert: {
          created_at?: string
          id: string
          locale?: string
          name: string
          org_id?: never
          region?: string | null
          sending_policy?: Json
          slug: string
          timezone?: string
          updated_at?: string
        }
        Update: {
          created_at?: string
          id?: string
          locale?: string
          name?: string
          org_id?: never
          region?: string | null
          sending_policy?: Json
          slug?: string
          timezone?: string
          updated_at?: string
        }
        Relationships: []
      }
      outbox: {
        Row: {
          at_most_once: boolean
          attempt_id: string | null
          attempts: number
          channel_id: string
          claimed_at: string | null
          conversation_id: string
          created_at: string
          due_at: string | null
          hold_reason: string | null
          lane: string
          lease_owner: string | null
          leased_until: string | null
          message_id: string
          ordered: boolean
          org_id: string
          priority: number
          unknown_since: string | null
        }
        Insert: {
          at_most_once?: boolean
          attempt_id?: string | null
          attempts?: number
          channel_id: string
          claimed_at?: string | null
          conversation_id: string
          created_at?: string
          due_at?: string | null
          hold_reason?: string | null
          lane?: string
          lease_owner?: string | null
          leased_until?: string | null
          message_id: string
          ordered?: boolean
          org_id: string
          priority?: number
          unknown_since?: string | null
        }
        Update: {
          at_most_once?: boolean
          attempt_id?: string | null
          attempts?: number
          channel_id?: string
          claimed_at?: string | null
          conversation_id?: string
          created_at?: string
          due_at?: string | null
          hold_reason?: string | null
          lane?: string
          lease_owner?: string | null
          leased_until?: string | null
          message_id?: string
          ordered?: boolean
          org_id?: string
          priority?: number
          unknown_since?: string | null
        }
        Relationships: [
          {
            foreignKeyName: "outbox_org_id_message_id_fkey"
            columns: ["org_id", "message_id"]
            isOneToOne: true
            referencedRelation: "messages"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      pending_statuses: {
        Row: {
          at: string
          attempt_id: string | null
          channel_id: string
          detail: Json
          id: string
          org_id: string
          provider_message_id: string
          received_at: string
          status: string
        }
        Insert: {
          at: string
          attempt_id?: string | null
          channel_id: string
          detail: Json
          id: string
          org_id: string
          provider_message_id: string
          received_at?: string
          status: string
        }
        Update: {
          at?: string
          attempt_id?: string | null
          channel_id?: string
          detail?: Json
          id?: string
          org_id?: string
          provider_message_id?: string
          received_at?: string
          status?: string
        }
        Relationships: [
          {
            foreignKeyName: "pending_statuses_org_id_channel_id_fkey"
            columns: ["org_id", "channel_id"]
            isOneToOne: false
            referencedRelation: "channels"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      profiles: {
        Row: {
          created_at: string
          email: string | null
          full_name: string | null
          id: string
          org_id: string
          phone: string | null
          role: "owner" | "admin" | "agent" | "viewer" | "super_admin"
          updated_at: string
        }
        Insert: {
          created_at?: string
          email?: string | null
          full_name?: string | null
          id: string
          org_id: string
          phone?: string | null
          role: "owner" | "admin" | "agent" | "viewer" | "super_admin"
          updated_at?: string
        }
        Update: {
          created_at?: string
          email?: string | null
          full_name?: string | null
          id?: string
          org_id?: string
          phone?: string | null
          role?: "owner" | "admin" | "agent" | "viewer" | "super_admin"
          updated_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "profiles_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
        ]
      }
      provider_templates: {
        Row: {
          announced_category: string | null
          category: string | null
          channel_id: string
          components: Json | null
          created_at: string
          id: string
          language: string
          name: string
          org_id: string
          parameter_format: "positional" | "named"
          provider_id: string | null
          quality: string | null
          rejected_reason: string | null
          status: string
          status_at: string
          updated_at: string
        }
        Insert: {
          announced_category?: string | null
          category?: string | null
          channel_id: string
          components?: Json | null
          created_at?: string
          id?: string
          language: string
          name: string
          org_id: string
          parameter_format?: "positional" | "named"
          provider_id?: string | null
          quality?: string | null
          rejected_reason?: string | null
          status: string
          status_at?: string
          updated_at?: string
        }
        Update: {
          announced_category?: string | null
          category?: string | null
          channel_id?: string
          components?: Json | null
          created_at?: string
          id?: string
          language?: string
          name?: string
          org_id?: string
          parameter_format?: "positional" | "named"
          provider_id?: string | null
          quality?: string | null
          rejected_reason?: string | null
          status?: string
          status_at?: string
          updated_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "provider_templates_org_id_channel_id_fkey"
            columns: ["org_id", "channel_id"]
            isOneToOne: false
            referencedRelation: "channels"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      scheduled_messages: {
        Row: {
          address: string | null
          category: "service" | "utility" | "marketing" | "authentication"
          channel_id: string
          content: Json | null
          conversation_id: string | null
          created_at: string
          created_by: string | null
          ends_at: string | null
          error: string | null
          error_code: string | null
          id: string
          last_run_at: string | null
          late_limit: string
          max_runs: number | null
          message_id: string | null
          org_id: string
          priority: number
          recipient_name: string | null
          recurrence: string | null
          run_count: number
          scheduled_for: string
          status: "scheduled" | "sent" | "cancelled" | "failed"
          template_id: string | null
          timezone: string
          updated_at: string
          variables: Json
        }
        Insert: {
          address?: string | null
          category?: "service" | "utility" | "marketing" | "authentication"
          channel_id: string
          content?: Json | null
          conversation_id?: string | null
          created_at?: string
          created_by?: string | null
          ends_at?: string | null
          error?: string | null
          error_code?: string | null
          id?: string
          last_run_at?: string | null
          late_limit?: string
          max_runs?: number | null
          message_id?: string | null
          org_id?: string
          priority?: number
          recipient_name?: string | null
          recurrence?: string | null
          run_count?: number
          scheduled_for: string
          status?: "scheduled" | "sent" | "cancelled" | "failed"
          template_id?: string | null
          timezone?: string
          updated_at?: string
          variables?: Json
        }
        Update: {
          address?: string | null
          category?: "service" | "utility" | "marketing" | "authentication"
          channel_id?: string
          content?: Json | null
          conversation_id?: string | null
          created_at?: string
          created_by?: string | null
          ends_at?: string | null
          error?: string | null
          error_code?: string | null
          id?: string
          last_run_at?: string | null
          late_limit?: string
          max_runs?: number | null
          message_id?: string | null
          org_id?: string
          priority?: number
          recipient_name?: string | null
          recurrence?: string | null
          run_count?: number
          scheduled_for?: string
          status?: "scheduled" | "sent" | "cancelled" | "failed"
          template_id?: string | null
          timezone?: string
          updated_at?: string
          variables?: Json
        }
        Relationships: [
          {
            foreignKeyName: "scheduled_messages_org_id_channel_id_fkey"
            columns: ["org_id", "channel_id"]
            isOneToOne: false
            referencedRelation: "channels"
            referencedColumns: ["org_id", "id"]
          },
          {
            foreignKeyName: "scheduled_messages_org_id_conversation_id_fkey"
            columns: ["org_id", "conversation_id"]
            isOneToOne: false
            referencedRelation: "conversations"
            referencedColumns: ["org_id", "id"]
          },
        ]
      }
      settings: {
        Row: {
          created_at: string
          description: string | null
          id: string
          key: string
          org_id: string
          updated_at: string
          updated_by: string | null
          value: Json
        }
        Insert: {
          created_at?: string
          description?: string | null
          id?: string
          key: string
          org_id?: string
          updated_at?: string
          updated_by?: string | null
          value?: Json
        }
        Update: {
          created_at?: string
          description?: string | null
          id?: string
          key?: string
          org_id?: string
          updated_at?: string
          updated_by?: string | null
          value?: Json
        }
        Relationships: [
          {
            foreignKeyName: "settings_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
        ]
      }
      storage_objects: {
        Row: {
          bucket: string
          cache_control: string
          created_at: string
          etag: string
          id: string
          mime_type: string
          name: string
          org_id: string
          owner_id: string | null
          size_bytes: number
          updated_at: string
          user_metadata: Json | null
          version: string
        }
        Insert: {
          bucket?: string
          cache_control?: string
          created_at?: string
          etag: string
          id?: string
          mime_type: string
          name: string
          org_id: string
          owner_id?: string | null
          size_bytes: number
          updated_at?: string
          user_metadata?: Json | null
          version: string
        }
        Update: {
          bucket?: string
          cache_control?: string
          created_at?: string
          etag?: string
          id?: string
          mime_type?: string
          name?: string
          org_id?: string
          owner_id?: string | null
          size_bytes?: number
          updated_at?: string
          user_metadata?: Json | null
          version?: string
        }
        Relationships: [
          {
            foreignKeyName: "storage_objects_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
        ]
      }
      subscriptions: {
        Row: {
          created_at: string
          customer_email: string | null
          customer_name: string
          customer_phone: string | null
          end_date: string
          id: string
          org_id: string
          plan: string
          start_date: string
          status: "trial" | "active" | "expired" | "cancelled"
          updated_at: string
        }
        Insert: {
          created_at?: string
          customer_email?: string | null
          customer_name: string
          customer_phone?: string | null
          end_date?: string
          id?: string
          org_id: string
          plan?: string
          start_date?: string
          status?: "trial" | "active" | "expired" | "cancelled"
          updated_at?: string
        }
        Update: {
          created_at?: string
          customer_email?: string | null
          customer_name?: string
          customer_phone?: string | null
          end_date?: string
          id?: string
          org_id?: string
          plan?: string
          start_date?: string
          status?: "trial" | "active" | "expired" | "cancelled"
          updated_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "subscriptions_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
        ]
      }
      template_mappings: {
        Row: {
          channel_id: string
          created_at: string
          org_id: string
          provider_template_id: string
          template_id: string
          updated_at: string
          variable_map: Json
        }
        Insert: {
          channel_id: string
          created_at?: string
          org_id: string
          provider_template_id: string
          template_id: string
          updated_at?: string
          variable_map?: Json
        }
        Update: {
          channel_id?: string
          created_at?: string
          org_id?: string
          provider_template_id?: string
          template_id?: string
          updated_at?: string
          variable_map?: Json
        }
        Relationships: [
          {
            foreignKeyName: "template_mappings_org_id_channel_id_provider_template_id_fkey"
            columns: ["org_id", "channel_id", "provider_template_id"]
            isOneToOne: false
            referencedRelation: "provider_templates"
            referencedColumns: ["org_id", "channel_id", "id"]
          },
        ]
      }
      templates: {
        Row: {
          category: "trial_welcome" | "subscription_expiring" | "subscription_activated" | "payment_reminder" | "custom"
          created_at: string
          created_by: string | null
          description: string | null
          email_html: string | null
          email_subject: string | null
          id: string
          is_active: boolean
          is_system: boolean
          last_used_at: string | null
          media_type: "image" | "document" | null
          media_url: string | null
          message_template: string
          name: string
          org_id: string
          twilio_content_sid: string | null
          twilio_variables: Json | null
          updated_at: string
          usage_count: number
          variables: Json
        }
        Insert: {
          category?: "trial_welcome" | "subscription_expiring" | "subscription_activated" | "payment_reminder" | "custom"
          created_at?: string
          created_by?: string | null
          description?: string | null
          email_html?: string | null
          email_subject?: string | null
          id?: string
          is_active?: boolean
          is_system?: never
          last_used_at?: string | null
          media_type?: "image" | "document" | null
          media_url?: string | null
          message_template: string
          name: string
          org_id?: string
          twilio_content_sid?: string | null
          twilio_variables?: Json | null
          updated_at?: string
          usage_count?: number
          variables?: Json
        }
        Update: {
          category?: "trial_welcome" | "subscription_expiring" | "subscription_activated" | "payment_reminder" | "custom"
          created_at?: string
          created_by?: string | null
          description?: string | null
          email_html?: string | null
          email_subject?: string | null
          id?: string
          is_active?: boolean
          is_system?: never
          last_used_at?: string | null
          media_type?: "image" | "document" | null
          media_url?: string | null
          message_template?: string
          name?: string
          org_id?: string
          twilio_content_sid?: string | null
          twilio_variables?: Json | null
          updated_at?: string
          usage_count?: number
          variables?: Json
        }
        Relationships: [
          {
            foreignKeyName: "templates_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
        ]
      }
      whatsapp_sessions: {
        Row: {
          auth_state: string | null
          auto_reconnect: boolean
          channel_id: string | null
          connection_error: string | null
          created_at: string
          display_name: string | null
          enabled: boolean
          history_days: number
          id: string
          last_connected_at: string | null
          last_disconnected_at: string | null
          linked_at: string | null
          org_id: string
          pair_with_phone: string | null
          pairing_code: string | null
          passkey_code: string | null
          passkey_request: Json | null
          phone_number: string | null
          qr_code: string | null
          qr_expires_at: string | null
          retry_count: number
          should_run: boolean
          status: "disconnected" | "connecting" | "qr_pending" | "connected" | "error"
          stop_reason: string | null
          updated_at: string
          whatsapp_id: string | null
          whatsapp_lid: string | null
        }
        Insert: {
          auth_state?: string | null
          auto_reconnect?: boolean
          channel_id?: string | null
          connection_error?: string | null
          created_at?: string
          display_name?: string | null
          enabled?: boolean
          history_days?: number
          id?: string
          last_connected_at?: string | null
          last_disconnected_at?: string | null
          linked_at?: string | null
          org_id?: string
          pair_with_phone?: string | null
          pairing_code?: string | null
          passkey_code?: string | null
          passkey_request?: Json | null
          phone_number?: string | null
          qr_code?: string | null
          qr_expires_at?: string | null
          retry_count?: number
          should_run?: boolean
          status?: "disconnected" | "connecting" | "qr_pending" | "connected" | "error"
          stop_reason?: string | null
          updated_at?: string
          whatsapp_id?: string | null
          whatsapp_lid?: string | null
        }
        Update: {
          auth_state?: string | null
          auto_reconnect?: boolean
          channel_id?: string | null
          connection_error?: string | null
          created_at?: string
          display_name?: string | null
          enabled?: boolean
          history_days?: number
          id?: string
          last_connected_at?: string | null
          last_disconnected_at?: string | null
          linked_at?: string | null
          org_id?: string
          pair_with_phone?: string | null
          pairing_code?: string | null
          passkey_code?: string | null
          passkey_request?: Json | null
          phone_number?: string | null
          qr_code?: string | null
          qr_expires_at?: string | null
          retry_count?: number
          should_run?: boolean
          status?: "disconnected" | "connecting" | "qr_pending" | "connected" | "error"
          stop_reason?: string | null
          updated_at?: string
          whatsapp_id?: string | null
          whatsapp_lid?: string | null
        }
        Relationships: [
          {
            foreignKeyName: "whatsapp_sessions_channel"
            columns: ["org_id", "channel_id"]
            isOneToOne: true
            referencedRelation: "channels"
            referencedColumns: ["org_id", "id"]
          },
          {
            foreignKeyName: "whatsapp_sessions_org_id_fkey"
            columns: ["org_id"]
            isOneToOne: false
            referencedRelation: "organizations"
            referencedColumns: ["id"]
          },
        ]
      }
    }
    Views: {
      chat_conversations: {
        Row: {
          created_at: string | null
          customer_name: string | null
          customer_phone: string | null
          customer_profile_pic: string | null
          id: string | null
          last_message: string | null
          last_message_time: string | null
          org_id: string | null
          phone_number_id: string | null
          status: string | null
          unread_count: number | null
          updated_at: string | null
          user_id: string | null
          waba_id: string | null
        }
        Relationships: []
      }
      chat_messages: {
        Row: {
          content: string | null
          conversation_id: string | null
          created_at: string | null
          id: string | null
          media_caption: string | null
          media_url: string | null
          message_id: string | null
          message_type: string | null
          metadata: Json | null
          org_id: string | null
          sender: string | null
          status: string | null
          timestamp: string | null
          wa_message_id: string | null
        }
        Relationships: []
      }
      message_logs: {
        Row: {
          created_at: string | null
          delivered_at: string | null
          error_code: string | null
          error_message: string | null
          external_id: string | null
          failed_at: string | null
          id: string | null
          media_url: string | null
          message_content: string | null
          message_type: string | null
          metadata: Json | null
          org_id: string | null
          provider: string | null
          read_at: string | null
          recipient: string | null
          request_id: string | null
          sender_id: string | null
          sent_at: string | null
          status: string | null
          updated_at: string | null
        }
        Insert: {
          created_at?: string | null
          delivered_at?: string | null
          error_code?: string | null
          error_message?: string | null
          external_id?: string | null
          failed_at?: string | null
          id?: string | null
          media_url?: string | null
          message_content?: string | null
          message_type?: string | null
          metadata?: Json | null
          org_id?: string | null
          provider?: string | null
          read_at?: string | null
          recipient?: string | null
          request_id?: string | null
          sender_id?: string | null
          sent_at?: string | null
          status?: string | null
          updated_at?: string | null
        }
        Update: {
          created_at?: string | null
          delivered_at?: string | null
          error_code?: string | null
          error_message?: string | null
          external_id?: string | null
          failed_at?: string | null
          id?: string | null
          media_url?: string | null
          message_content?: string | null
          message_type?: string | null
          metadata?: Json | null
          org_id?: string | null
          provider?: string | null
          read_at?: string | null
          recipient?: string | null
          request_id?: string | null
          sender_id?: string | null
          sent_at?: string | null
          status?: string | null
          updated_at?: string | null
        }
        Relationships: []
      }
      phone_numbers: {
        Row: {
          display_phone_number: string | null
          id: string | null
          is_registered: boolean | null
          org_id: string | null
          phone_number_id: string | null
          verified_name: string | null
          waba_id: string | null
        }
        Relationships: []
      }
      waba_accounts: {
        Row: {
          access_token: string | null
          created_at: string | null
          org_id: string | null
          owner_business_id: string | null
          user_id: string | null
          waba_id: string | null
        }
        Relationships: []
      }
      whatsapp_analytics: {
        Row: {
          channel_id: string | null
          created_at: string | null
          date: string | null
          id: string | null
          messages_delivered: number | null
          messages_failed: number | null
          messages_read: number | null
          messages_received: number | null
          messages_sent: number | null
          org_id: string | null
          template_name: string | null
          updated_at: string | null
        }
        Relationships: []
      }
      whatsapp_conversations: {
        Row: {
          assigned_to: string | null
          channel_id: string | null
          created_at: string | null
          customer_name: string | null
          id: string | null
          last_message: string | null
          last_message_at: string | null
          notes: string | null
          org_id: string | null
          patient_id: string | null
          phone_number: string | null
          status: string | null
          tags: string[] | null
          unread_count: number | null
          updated_at: string | null
        }
        Relationships: []
      }
      whatsapp_messages: {
        Row: {
          content: string | null
          conversation_id: string | null
          created_at: string | null
          delivered_at: string | null
          direction: string | null
          error_code: string | null
          error_message: string | null
          failed_at: string | null
          id: string | null
          media_url: string | null
          message_body: string | null
          message_content: string | null
          message_sid: string | null
          message_type: string | null
          metadata: Json | null
          org_id: string | null
          read_at: string | null
          recipient_name: string | null
          recipient_phone: string | null
          related_entity_id: string | null
          request_id: string | null
          retry_count: number | null
          scheduled_at: string | null
          sender_id: string | null
          sent_at: string | null
          sent_by: string | null
          session_id: string | null
          status: string | null
          template_name: string | null
          template_params: Json | null
          trigger_type: string | null
          updated_at: string | null
          whatsapp_message_id: string | null
        }
        Insert: {
          content?: string | null
          conversation_id?: string | null
          created_at?: string | null
          delivered_at?: string | null
          direction?: string | null
          error_code?: string | null
          error_message?: string | null
          failed_at?: string | null
          id?: string | null
          media_url?: string | null
          message_body?: string | null
          message_content?: string | null
          message_sid?: string | null
          message_type?: string | null
          metadata?: Json | null
          org_id?: string | null
          read_at?: string | null
          recipient_name?: string | null
          recipient_phone?: string | null
          related_entity_id?: string | null
          request_id?: string | null
          retry_count?: number | null
          scheduled_at?: string | null
          sender_id?: string | null
          sent_at?: string | null
          sent_by?: string | null
          session_id?: string | null
          status?: string | null
          template_name?: string | null
          template_params?: Json | null
          trigger_type?: string | null
          updated_at?: string | null
          whatsapp_message_id?: string | null
        }
        Update: {
          content?: string | null
          conversation_id?: string | null
          created_at?: string | null
          delivered_at?: string | null
          direction?: string | null
          error_code?: string | null
          error_message?: string | null
          failed_at?: string | null
          id?: string | null
          media_url?: string | null
          message_body?: string | null
          message_content?: string | null
          message_sid?: string | null
          message_type?: string | null
          metadata?: Json | null
          org_id?: string | null
          read_at?: string | null
          recipient_name?: string | null
          recipient_phone?: string | null
          related_entity_id?: string | null
          request_id?: string | null
          retry_count?: number | null
          scheduled_at?: string | null
          sender_id?: string | null
          sent_at?: string | null
          sent_by?: string | null
          session_id?: string | null
          status?: string | null
          template_name?: string | null
          template_params?: Json | null
          trigger_type?: string | null
          updated_at?: string | null
          whatsapp_message_id?: string | null
        }
        Relationships: []
      }
      whatsapp_scheduled_messages: {
        Row: {
          channel_id: string | null
          conversation_id: string | null
          created_at: string | null
          created_by: string | null
          error_message: string | null
          id: string | null
          media_url: string | null
          message_content: string | null
          message_id: string | null
          message_type: string | null
          org_id: string | null
          phone_number: string | null
          recipient_name: string | null
          recurrence: string | null
          scheduled_at: string | null
          sent_at: string | null
          status: string | null
          template_id: string | null
          timezone: string | null
          updated_at: string | null
          variables: Json | null
        }
        Insert: {
          channel_id?: string | null
          conversation_id?: string | null
          created_at?: string | null
          created_by?: string | null
          error_message?: string | null
          id?: string | null
          media_url?: string | null
          message_content?: string | null
          message_id?: string | null
          message_type?: string | null
          org_id?: string | null
          phone_number?: string | null
          recipient_name?: string | null
          recurrence?: string | null
          scheduled_at?: string | null
          sent_at?: string | null
          status?: string | null
          template_id?: string | null
          timezone?: string | null
          updated_at?: string | null
          variables?: Json | null
        }
        Update: {
          channel_id?: string | null
          conversation_id?: string | null
          created_at?: string | null
          created_by?: string | null
          error_message?: string | null
          id?: string | null
          media_url?: string | null
          message_content?: string | null
          message_id?: string | null
          message_type?: string | null
          org_id?: string | null
          phone_number?: string | null
          recipient_name?: string | null
          recurrence?: string | null
          scheduled_at?: string | null
          sent_at?: string | null
          status?: string | null
          template_id?: string | null
          timezone?: string | null
          updated_at?: string | null
          variables?: Json | null
        }
        Relationships: []
      }
      whatsapp_settings: {
        Row: {
          created_at: string | null
          description: string | null
          id: string | null
          key: string | null
          org_id: string | null
          updated_at: string | null
          updated_by: string | null
          value: Json | null
        }
        Insert: {
          created_at?: string | null
          description?: string | null
          id?: string | null
          key?: string | null
          org_id?: string | null
          updated_at?: string | null
          updated_by?: string | null
          value?: Json | null
        }
        Update: {
          created_at?: string | null
          description?: string | null
          id?: string | null
          key?: string | null
          org_id?: string | null
          updated_at?: string | null
          updated_by?: string | null
          value?: Json | null
        }
        Relationships: []
      }
      whatsapp_templates: {
        Row: {
          category: string | null
          created_at: string | null
          created_by: string | null
          description: string | null
          id: string | null
          is_active: boolean | null
          is_system: boolean | null
          last_used_at: string | null
          media_type: string | null
          media_url: string | null
          message_template: string | null
          name: string | null
          org_id: string | null
          updated_at: string | null
          usage_count: number | null
          variables: Json | null
        }
        Insert: {
          category?: string | null
          created_at?: string | null
          created_by?: string | null
          description?: string | null
          id?: string | null
          is_active?: boolean | null
          is_system?: boolean | null
          last_used_at?: string | null
          media_type?: string | null
          media_url?: string | null
          message_template?: string | null
          name?: string | null
          org_id?: string | null
          updated_at?: string | null
          usage_count?: number | null
          variables?: Json | null
        }
        Update: {
          category?: string | null
          created_at?: string | null
          created_by?: string | null
          description?: string | null
          id?: string | null
          is_active?: boolean | null
          is_system?: boolean | null
          last_used_at?: string | null
          media_type?: string | null
          media_url?: string | null
          message_template?: string | null
          name?: string | null
          org_id?: string | null
          updated_at?: string | null
          usage_count?: number | null
          variables?: Json | null
        }
        Relationships: []
      }
    }
    Functions: {
      [_ in never]: never
    }
    Enums: {
      [_ in never]: never
    }
    CompositeTypes: {
      [_ in never]: never
    }
  }
}

type Public = Database["public"]

/** A row of a table or view as it is read. */
export type Tables<Name extends keyof (Public["Tables"] & Public["Views"])> =
  (Public["Tables"] & Public["Views"])[Name]["Row"]

/** A row as it is inserted. */
export type TablesInsert<Name extends keyof Public["Tables"]> = Public["Tables"][Name]["Insert"]

/** What an update may change. */
export type TablesUpdate<Name extends keyof Public["Tables"]> = Public["Tables"][Name]["Update"]
